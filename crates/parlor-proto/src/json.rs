//! One way to read JSON from a stranger: depth first, then types, and the field to blame.

use serde::de::DeserializeOwned;

use crate::{
    error::{ErrorCode, Invalid},
    limits::JSON_DEPTH,
};

/// Reads a value from JSON text; every refusal names its field where there is one.
///
/// Repeated keys, unpaired surrogates, trailing text and nesting above [`JSON_DEPTH`] are refused.
pub fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, Invalid> {
    check_depth(text)?;
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value =
        serde_path_to_error::deserialize(&mut reader).map_err(|error| blame(text, error))?;
    reader.end().map_err(|error| not_json(&error))?;
    Ok(value)
}

/// Reads an object; serde alone would take an array of the fields in their order for it.
pub fn parse_object<T: DeserializeOwned>(text: &[u8]) -> Result<T, Invalid> {
    match text.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{') => parse(text),
        _ => {
            // What is not JSON at all is said so first.
            parse::<serde::de::IgnoredAny>(text)?;
            Err(Invalid::new("", "this is JSON, but not an object"))
        }
    }
}

/// Reads a value that borrows from the text; the caller has checked the depth.
pub fn parse_borrowed<'a, T: serde::Deserialize<'a>>(text: &'a str) -> Result<T, Invalid> {
    serde_json::from_str(text).map_err(|error| not_json(&error))
}

/// Refuses text that nests deeper than [`JSON_DEPTH`], without building anything.
pub fn check_depth(text: &[u8]) -> Result<(), Invalid> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for &byte in text {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > JSON_DEPTH {
            let detail = format!("the JSON nests deeper than {JSON_DEPTH} levels");
            return Err(Invalid::with_code(ErrorCode::BadJson, "", detail));
        }
    }
    Ok(())
}

fn blame(text: &[u8], error: serde_path_to_error::Error<serde_json::Error>) -> Invalid {
    let path = error.path().to_string();
    let inner = error.into_inner();
    // A number where one of several names is wanted counts as a fault of syntax too.
    let is_json = || serde_json::from_slice::<serde_json::Value>(text).is_ok();
    if inner.is_eof() || inner.is_io() || (inner.is_syntax() && !is_json()) {
        return not_json(&inner);
    }
    blame_field(path, without_position(&inner.to_string()))
}

/// Turns what serde says about a path into a refusal that names the field.
pub fn blame_field(path: String, detail: String) -> Invalid {
    let path = if path == "." { String::new() } else { path };
    // serde names the unknown, missing or repeated field in its text only, and its path may or
    // may not hold it already, depending on the kind of error.
    for (prefix, code) in [
        ("unknown field `", ErrorCode::UnknownField),
        ("missing field `", ErrorCode::Invalid),
        ("duplicate field `", ErrorCode::Invalid),
    ] {
        if let Some(name) = detail.strip_prefix(prefix).and_then(|rest| rest.split('`').next()) {
            let is_last = path == name || path.ends_with(&format!(".{name}"));
            let field = match (path.is_empty(), is_last) {
                (true, _) => name.to_owned(),
                (_, true) => path,
                _ => format!("{path}.{name}"),
            };
            return Invalid::with_code(code, field, detail);
        }
    }
    Invalid::new(path, detail)
}

fn not_json(error: &serde_json::Error) -> Invalid {
    Invalid::with_code(ErrorCode::BadJson, "", format!("the body is not JSON: {error}"))
}

fn without_position(text: &str) -> String {
    text.rsplit_once(" at line ").map_or(text, |(head, _)| head).to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only its shape is read")]
    struct Outer {
        items: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only its shape is read")]
    struct Inner {
        n: u8,
    }

    fn refusal(text: &str) -> Invalid {
        parse::<Outer>(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn the_field_to_blame_is_named() {
        assert_eq!(refusal(r#"{"items":[{"n":1},{"n":"x"}]}"#).field, "items[1].n");
        assert_eq!(refusal(r#"{"items":[{"n":1},{"n":300}]}"#).field, "items[1].n");
        let unknown = refusal(r#"{"items":[{"n":1,"m":2}]}"#);
        assert_eq!((unknown.field.as_str(), unknown.code), ("items[0].m", ErrorCode::UnknownField));
        assert_eq!(refusal("{}").field, "items");
        assert_eq!(refusal(r#"{"items":[],"items":[]}"#).field, "items");
    }

    #[test]
    fn what_is_not_json_is_said_so() {
        for text in
            ["", "{", "nonsense", r#"{"items":[]} x"#, "[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]"]
        {
            assert_eq!(refusal(text).code, ErrorCode::BadJson, "{text}");
        }
        assert_eq!(parse::<String>(br#""\ud800""#).unwrap_err().code, ErrorCode::BadJson);
        assert_eq!(parse::<String>(b"\"\xff\"").unwrap_err().code, ErrorCode::BadJson);
    }

    #[test]
    fn brackets_in_strings_do_not_nest() {
        let text = format!("\"{}\\\"{}\"", "[".repeat(50), "{".repeat(50));
        assert!(parse::<String>(text.as_bytes()).is_ok());
    }
}
