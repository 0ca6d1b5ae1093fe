//! The `tojson` filter as Hugging Face sets it up: Python's `json.dumps`.

use std::fmt::Write as _;

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

/// Deeper nesting than any message or tool has.
const DEEPEST: usize = 128;

/// `json.dumps(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`,
/// the defaults being those of `transformers`, not Python's.
pub(super) fn tojson(state: &State, value: &Value, kwargs: Kwargs) -> Result<String, Error> {
    let indent = match kwargs.get::<Option<Value>>("indent")? {
        None => None,
        Some(v) if v.is_none() => None,
        Some(v) => Some(match (v.as_str(), v.as_usize()) {
            (Some(text), _) => text.to_owned(),
            (None, Some(width)) if width <= 32 => " ".repeat(width),
            _ => return Err(wrong("indent must be a string or a number up to 32")),
        }),
    };
    let separators = match kwargs.get::<Option<Value>>("separators")? {
        Some(v) if !v.is_none() => {
            let item = |i: usize| -> Result<String, Error> {
                let item = v.get_item_by_index(i)?;
                let text = item.as_str();
                text.map(str::to_owned)
                    .ok_or_else(|| wrong("separators must be two strings"))
            };
            (item(0)?, item(1)?)
        }
        // With an indent the line ends right after the comma.
        _ if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        _ => (", ".to_owned(), ": ".to_owned()),
    };
    let mut writer = Writer {
        state,
        out: String::new(),
        charged: 0,
        ensure_ascii: kwargs
            .get::<Option<bool>>("ensure_ascii")?
            .unwrap_or_default(),
        sort_keys: kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or_default(),
        indent,
        separators,
    };
    kwargs.assert_all_used()?;
    writer.value(value, 0)?;
    Ok(writer.out)
}

fn wrong(reason: impl Into<String>) -> Error {
    Error::new(
        ErrorKind::InvalidOperation,
        format!("tojson: {}", reason.into()),
    )
}

struct Writer<'s, 'template, 'env> {
    state: &'s State<'template, 'env>,
    out: String,
    /// Bytes of `out` already paid for.
    charged: usize,
    ensure_ascii: bool,
    sort_keys: bool,
    indent: Option<String>,
    separators: (String, String),
}

impl Writer<'_, '_, '_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > DEEPEST {
            return Err(wrong("the value is nested too deeply"));
        }
        // What is written is paid for on the way, not when it is too late.
        let written = self.out.len().saturating_sub(self.charged);
        self.state.consume_fuel(1 + (written / 64) as u64)?;
        self.charged = self.out.len();

        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self
                .out
                .push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.number(value),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let mut first = true;
                self.out.push('[');
                for item in value.try_iter()?.checked() {
                    self.item(&mut first, depth);
                    self.value(&item?, depth + 1)?;
                }
                self.close(first, depth, ']');
            }
            ValueKind::Map => self.map(value, depth)?,
            other => return Err(wrong(format!("{other} is not JSON serializable"))),
        }
        Ok(())
    }

    fn map(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let mut keys = value.try_iter()?.checked().collect::<Result<Vec<_>, _>>()?;
        if self.sort_keys {
            keys.sort();
        }
        let mut first = true;
        self.out.push('{');
        for key in keys {
            self.item(&mut first, depth);
            match key.kind() {
                ValueKind::String => self.string(key.as_str().unwrap_or_default()),
                ValueKind::Number | ValueKind::Bool | ValueKind::None => {
                    self.out.push('"');
                    self.value(&key, depth + 1)?;
                    self.out.push('"');
                }
                other => return Err(wrong(format!("a key cannot be {other}"))),
            }
            self.out.push_str(&self.separators.1);
            self.value(&value.get_item(&key)?, depth + 1)?;
        }
        self.close(first, depth, '}');
        Ok(())
    }

    /// What comes before an item: a separator unless it is the first, and a new line.
    fn item(&mut self, first: &mut bool, depth: usize) {
        if !std::mem::take(first) {
            self.out.push_str(&self.separators.0);
        }
        self.line(depth + 1);
    }

    fn close(&mut self, empty: bool, depth: usize, bracket: char) {
        if !empty {
            self.line(depth);
        }
        self.out.push(bracket);
    }

    fn line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            for _ in 0..depth {
                self.out.push_str(indent);
            }
        }
    }

    fn number(&mut self, value: &Value) {
        match f64::try_from(value.clone()) {
            Ok(float) if !value.is_integer() => self.out.push_str(&python_float(float)),
            _ => self.out.push_str(&value.to_string()),
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                c if c < ' '
                    || (self.ensure_ascii && !c.is_ascii())
                    || c == '\u{7f}' && self.ensure_ascii =>
                {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        // Writing to a string cannot fail.
                        let _ = write!(self.out, "\\u{unit:04x}");
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

/// Python's `repr` of a float: the shortest digits, with an exponent below
/// 1e-4 and from 1e16 on.
fn python_float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..16).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
        }
        _ => {
            let plain = value.to_string();
            if plain.contains('.') {
                plain
            } else {
                plain + ".0"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use minijinja::{Environment, context};
    use serde_json::json;

    use super::*;

    fn render(expression: &str) -> Result<String, Error> {
        let mut env = Environment::new();
        env.add_filter("tojson", tojson);
        env.set_fuel(Some(10_000));
        let x = json!({
            "b": [1, 2.5, true, null, {}, []],
            "a": {"text": "a<b> \"é\" 😀\n\u{1}\u{7f}", "big": 1e16, "small": 0.00001, "one": 1.0},
        });
        env.render_str(
            expression,
            context!(x => Value::from(minijinja::value::Serde(&x))),
        )
    }

    #[test]
    fn defaults_are_those_of_transformers() {
        assert_eq!(
            render("{{ x | tojson }}").unwrap(),
            "{\"b\": [1, 2.5, true, null, {}, []], \"a\": {\"text\": \"a<b> \\\"é\\\" 😀\\n\\u0001\u{7f}\", \
             \"big\": 1e+16, \"small\": 1e-05, \"one\": 1.0}}"
        );
    }

    #[test]
    fn options_are_those_of_json_dumps() {
        assert_eq!(
            render("{{ x.b | tojson(indent=2) }}").unwrap(),
            "[\n  1,\n  2.5,\n  true,\n  null,\n  {},\n  []\n]"
        );
        assert_eq!(
            render("{{ {'b': [1, 2], 'a': 3} | tojson(sort_keys=true, separators=(',', ':')) }}")
                .unwrap(),
            "{\"a\":3,\"b\":[1,2]}"
        );
        assert_eq!(
            render("{{ x.a.text | tojson(ensure_ascii=true) }}").unwrap(),
            "\"a<b> \\\"\\u00e9\\\" \\ud83d\\ude00\\n\\u0001\\u007f\""
        );
        assert_eq!(
            render("{{ [1] | tojson(indent='\t') }}").unwrap(),
            "[\n\t1\n]"
        );
    }

    #[test]
    fn what_is_no_json_is_refused() {
        assert!(render("{{ nothing | tojson }}").is_err());
        assert!(render("{{ x | tojson(indnet=2) }}").is_err());
        assert!(render("{{ x | tojson(indent=1000000) }}").is_err());
    }

    #[test]
    fn work_is_charged() {
        let error = render("{% for i in range(9000) %}{{ x | tojson }}{% endfor %}").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfFuel);
    }

    #[test]
    fn floats_are_written_as_python_does() {
        for (value, expected) in [
            (0.1, "0.1"),
            (-0.0, "-0.0"),
            (1e15, "1000000000000000.0"),
            (123_456_789_012_345_680.0, "1.2345678901234568e+17"),
            (0.0001, "0.0001"),
            (2.5e-7, "2.5e-07"),
            (1e100, "1e+100"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(python_float(value), expected);
        }
    }
}
