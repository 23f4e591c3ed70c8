//! The values of further columns of the tables, in the JSON of a sample behind its own fields.

use crate::dataset::{ExtraField, ExtraValue};
use crate::formats::pyjson::dumps;

/// The JSON of a sample with the values of further columns at its end.
pub(super) fn with_extra(mut json: String, extra: &[ExtraField]) -> String {
    if extra.is_empty() {
        return json;
    }
    json.pop(); // the brace
    for ExtraField { name, value } in extra {
        let value = match value {
            ExtraValue::Missing => "null".to_owned(), // not NaN, which strict readers of JSON refuse
            ExtraValue::Integer(number) => number.to_string(),
            ExtraValue::Float(number) => dumps(number),
            ExtraValue::Text(text) => dumps(text),
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
        let field = |name: &str, value| ExtraField { name: name.to_owned(), value };
        let fields = [
            field("age", ExtraValue::Integer(63)),
            field("dose \u{b5}Sv", ExtraValue::Float(1e16)),
            field("sex", ExtraValue::Text("F \"q\"".to_owned())),
            field("size", ExtraValue::Missing),
        ];
        let right = r#"{"study_id": "a", "age": 63, "dose \u00b5Sv": 1e+16, "sex": "F \"q\"", "size": null}"#;
        assert_eq!(with_extra(r#"{"study_id": "a"}"#.to_owned(), &fields), right);
        assert_eq!(with_extra(r#"{"study_id": "a"}"#.to_owned(), &[]), r#"{"study_id": "a"}"#);
    }
}
