//! The values of further columns of the tables, in the JSON of a sample behind its own fields.

use crate::dataset::{FieldValue, JsonField};
use crate::formats::pyjson::dumps;

/// The JSON of a sample with the values of further columns at its end.
pub(super) fn with_fields(mut json: String, fields: &[JsonField]) -> String {
    if fields.is_empty() {
        return json;
    }
    json.pop(); // the brace
    for JsonField { name, value } in fields {
        let value = match value {
            FieldValue::Missing => "null".to_owned(), // not NaN, which strict readers of JSON refuse
            FieldValue::Integer(number) => number.to_string(),
            FieldValue::Float(number) => dumps(number),
            FieldValue::Text(text) => dumps(text),
        };
        json.push_str(&format!(", {}: {value}", dumps(name)));
    }
    json.push('}');
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_as_python_writes_them() {
        let field = |name: &str, value| JsonField { name: name.to_owned(), value };
        let fields = [
            field("age", FieldValue::Integer(63)),
            field("dose \u{b5}Sv", FieldValue::Float(1e16)),
            field("sex", FieldValue::Text("F \"q\"".to_owned())),
            field("size", FieldValue::Missing),
        ];
        let right = r#"{"study_id": "a", "age": 63, "dose \u00b5Sv": 1e+16, "sex": "F \"q\"", "size": null}"#;
        assert_eq!(with_fields(r#"{"study_id": "a"}"#.to_owned(), &fields), right);
        assert_eq!(with_fields(r#"{"study_id": "a"}"#.to_owned(), &[]), r#"{"study_id": "a"}"#);
    }
}
