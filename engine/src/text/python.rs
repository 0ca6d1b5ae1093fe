//! What chat templates use of Python beyond what `minijinja` has.

use std::fmt;

use jiff::ZonedDateTime;
use minijinja::value::{Tuple, from_args};
use minijinja::{Environment, Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat;

use super::tojson::tojson;

/// Where `strftime_now` has the time from.
pub(super) type Clock = fn() -> ZonedDateTime;

/// Adds methods, functions and filters as `transformers` gives them to templates.
pub(super) fn extend(env: &mut Environment<'static>, clock: Clock) {
    env.set_unknown_method_callback(method);
    env.add_filter("tojson", tojson);
    env.add_function(
        "raise_exception",
        |message: &Value| -> Result<Value, Error> {
            let message = message.to_string();
            Err(Error::new(ErrorKind::InvalidOperation, message.clone())
                .with_source(Raised(message)))
        },
    );
    env.add_function("strftime_now", move |format: &str| {
        jiff::fmt::strtime::format(format, &clock())
            .map_err(|e| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {e}")))
    });
}

/// What a template gave to `raise_exception`.
#[derive(Debug)]
pub(super) struct Raised(pub(super) String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

/// Python's methods: a few of `str`, the rest by `minijinja-contrib`.
fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        match name {
            "removeprefix" => {
                let (prefix,): (&str,) = from_args(args)?;
                return Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)));
            }
            "removesuffix" => {
                let (suffix,): (&str,) = from_args(args)?;
                return Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)));
            }
            "partition" | "rpartition" => {
                let (separator,): (&str,) = from_args(args)?;
                return partition(text, separator, name == "rpartition");
            }
            "rsplit" => {
                let (separator, limit): (&str, Option<i64>) = from_args(args)?;
                return rsplit(text, separator, limit);
            }
            _ => {}
        }
    }
    pycompat::unknown_method_callback(state, value, name, args)
}

fn not_empty(separator: &str) -> Result<(), Error> {
    if separator.is_empty() {
        Err(Error::new(
            ErrorKind::InvalidOperation,
            "a separator cannot be empty",
        ))
    } else {
        Ok(())
    }
}

fn partition(text: &str, separator: &str, from_the_right: bool) -> Result<Value, Error> {
    not_empty(separator)?;
    let (found, without) = if from_the_right {
        (text.rsplit_once(separator), ["", "", text])
    } else {
        (text.split_once(separator), [text, "", ""])
    };
    let parts = found.map_or(without, |(before, after)| [before, separator, after]);
    Ok(Value::from(Tuple::from(parts.map(Value::from))))
}

fn rsplit(text: &str, separator: &str, limit: Option<i64>) -> Result<Value, Error> {
    not_empty(separator)?;
    // A negative limit is none, as in Python.
    let limit = limit.and_then(|n| usize::try_from(n).ok());
    let parts = limit.map_or(usize::MAX, |n| n.saturating_add(1));
    let mut split: Vec<Value> = text.rsplitn(parts, separator).map(Value::from).collect();
    split.reverse();
    Ok(Value::from(split))
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    fn noon() -> ZonedDateTime {
        "2024-07-26T12:05:09[UTC]".parse().expect("a time")
    }

    fn render(source: &str) -> Result<String, Error> {
        let mut env = Environment::new();
        extend(&mut env, noon);
        env.render_str(source, ())
    }

    #[test]
    fn methods_of_str() {
        for (source, expected) in [
            ("{{ 'a</think>b</think>c'.split('</think>')[-1] }}", "c"),
            ("{{ 'a-b-c'.rsplit('-', 1)[0] }}", "a-b"),
            ("{{ 'a-b-c'.rsplit('-') | length }}", "3"),
            ("{{ 'a-b-c'.partition('-')[2] }}", "b-c"),
            ("{{ 'a-b-c'.rpartition('-')[0] }}", "a-b"),
            ("{{ 'abc'.rpartition('-')[2] }}", "abc"),
            ("{{ 'abc'.removeprefix('a').removesuffix('c') }}", "b"),
            ("{{ '  x '.strip() ~ 'xxyx'.strip('x') }}", "xy"),
            ("{{ 'hello world'.title() }}", "Hello World"),
            (
                "{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}",
                "a1",
            ),
        ] {
            assert_eq!(render(source).unwrap(), expected, "{source}");
        }
        assert!(render("{{ 'a'.rsplit('') }}").is_err());
        assert!(render("{{ 'a'.nonsense() }}").is_err());
    }

    #[test]
    fn the_date_is_formatted_as_by_strftime() {
        assert_eq!(
            render("{{ strftime_now('%d %b %Y') }}").unwrap(),
            "26 Jul 2024"
        );
        assert_eq!(
            render("{{ strftime_now('%Y-%m-%d %H:%M:%S %A %B %j') }}").unwrap(),
            "2024-07-26 12:05:09 Friday July 208"
        );
        assert!(render("{{ strftime_now('%!') }}").is_err());
    }

    #[test]
    fn raised_messages_stay_whole() {
        let error = render("{{ raise_exception('Only user and ' ~ 'assistant!') }}").unwrap_err();
        let raised = error.source().and_then(|e| e.downcast_ref::<Raised>());
        assert_eq!(raised.unwrap().0, "Only user and assistant!");
    }
}
