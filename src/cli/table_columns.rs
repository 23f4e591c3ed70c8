//! The flags that name columns of the tables.

use super::dataset::DatasetArgs;
use crate::dataset::{Columns, NamedColumns, Names, meta_columns, text_columns};
use crate::error::{Error, Result};

impl DatasetArgs {
    /// The columns of the tables.
    ///
    /// # Errors
    /// [`Error::Usage`] if a column of the metadata is given for no known value.
    pub(super) fn columns(&self) -> Result<Columns> {
        let all = |lists: &[Names]| lists.iter().flat_map(|names| names.0.clone()).collect::<Vec<String>>();
        let mut columns = Columns::default();
        if !self.id_column.is_empty() {
            columns.ids.clone_from(&self.id_column);
        }
        if !self.text_columns.is_empty() {
            columns.texts = text_columns(&all(&self.text_columns));
        }
        let named = |lists: &[Names]| all(lists).iter().map(|name| NamedColumns::from(&**name)).collect();
        columns.classes = named(&self.label_columns);
        columns.extra = named(&self.extra_columns);
        let meta = meta_columns(&all(&self.meta_columns));
        columns.meta = meta.map_err(|what| Error::Usage(format!("--meta-columns: {what}")))?;
        Ok(columns)
    }
}
