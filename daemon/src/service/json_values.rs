//! How much a JSON text holds, told without reading it.

/// An upper bound of the values in a JSON text, at any depth; objects and lists count.
///
/// Each value but the outermost comes after a comma or is the first in its brackets, so
/// it is enough to count these. Where the text stops being JSON this does not matter:
/// reading it stops there.
pub(super) fn most_json_values(text: &str) -> usize {
    let mut values = 1;
    let mut in_string = false;
    let mut escaped = false;
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b',' | b'[' | b'{' if !in_string => values += 1,
            _ => {}
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn count(value: &Value) -> usize {
        1 + match value {
            Value::Array(list) => list.iter().map(count).sum(),
            Value::Object(map) => map.values().map(count).sum(),
            _ => 0,
        }
    }

    #[test]
    fn never_less_than_there_are() {
        for text in [
            "1",
            "[1, 2, 3]",
            r#"{"a": [1, {"b": null}], "c,d": "e,[{\",[", "f": "\\"}"#,
            r#"["\"", ",", "\\\",,"]"#,
            "[[[[]]]]",
            "{}",
        ] {
            let there = count(&serde_json::from_str(text).unwrap());
            let most = most_json_values(text);
            let empty = text.matches("[]").count() + text.matches("{}").count();
            assert_eq!(most, there + empty, "{text}");
        }
    }
}
