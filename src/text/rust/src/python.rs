//! Values written as Python writes them, which is what templates were made for.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};
use std::fmt::Write;

/// Layout of json.dumps: no indent gives one line with ", " and ": ".
pub struct Layout {
    pub indent: Option<usize>,
    pub item_separator: String,
    pub key_separator: String,
    pub sort_keys: bool,
    pub ensure_ascii: bool,
}

const DEEPEST: usize = 100;

fn too_deep() -> Error {
    Error::new(ErrorKind::InvalidOperation, "value is nested too deeply")
}

fn json_string(text: &str, ensure_ascii: bool, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c if ensure_ascii && !c.is_ascii() => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// A number as Python's repr writes it.
fn number(value: &Value, out: &mut String) {
    if value.is_integer() {
        let _ = write!(out, "{value}");
        return;
    }
    let Ok(x) = f64::try_from(value.clone()) else {
        let _ = write!(out, "{value}");
        return;
    };
    if x.is_nan() {
        out.push_str("nan");
    } else if x.is_infinite() {
        out.push_str(if x > 0.0 { "inf" } else { "-inf" });
    } else if x != 0.0 && !(1e-4..1e16).contains(&x.abs()) {
        let text = format!("{x:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        let sign = if exponent < 0 { '-' } else { '+' };
        let _ = write!(out, "{digits}e{sign}{:02}", exponent.abs());
    } else {
        let _ = write!(out, "{x:?}");
    }
}

pub fn json(value: &Value, layout: &Layout, depth: usize, out: &mut String) -> Result<(), Error> {
    if depth > DEEPEST {
        return Err(too_deep());
    }
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => {
            let start = out.len();
            number(value, out);
            match &out[start..] {
                "nan" => out.replace_range(start.., "NaN"),
                "inf" => out.replace_range(start.., "Infinity"),
                "-inf" => out.replace_range(start.., "-Infinity"),
                _ => {}
            }
        }
        ValueKind::String => json_string(value.as_str().unwrap_or_default(), layout.ensure_ascii, out),
        ValueKind::Map => return json_map(value, layout, depth, out),
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> = value.try_iter()?.collect();
            let pairs: Vec<(Option<String>, Value)> = items.into_iter().map(|v| (None, v)).collect();
            return json_items(&pairs, ('[', ']'), layout, depth, out);
        }
        ValueKind::Undefined => {
            return Err(Error::new(ErrorKind::BadSerialization, "an undefined value is not JSON"));
        }
        _ => return Err(Error::new(ErrorKind::BadSerialization, format!("{value} is not JSON"))),
    }
    Ok(())
}

fn json_map(value: &Value, layout: &Layout, depth: usize, out: &mut String) -> Result<(), Error> {
    let mut pairs = Vec::new();
    for key in value.try_iter()? {
        let name = match key.kind() {
            ValueKind::String => key.as_str().unwrap_or_default().to_owned(),
            _ => {
                let mut text = String::new();
                json(&key, layout, depth + 1, &mut text)?;
                text
            }
        };
        let item = value.get_item(&key)?;
        pairs.push((Some(name), item));
    }
    if layout.sort_keys {
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
    }
    json_items(&pairs, ('{', '}'), layout, depth, out)
}

fn json_items(
    pairs: &[(Option<String>, Value)],
    (open, close): (char, char),
    layout: &Layout,
    depth: usize,
    out: &mut String,
) -> Result<(), Error> {
    out.push(open);
    for (i, (key, value)) in pairs.iter().enumerate() {
        if i > 0 {
            out.push_str(&layout.item_separator);
        }
        new_line(layout, depth + 1, out);
        if let Some(key) = key {
            json_string(key, layout.ensure_ascii, out);
            out.push_str(&layout.key_separator);
        }
        json(value, layout, depth + 1, out)?;
    }
    if !pairs.is_empty() {
        new_line(layout, depth, out);
    }
    out.push(close);
    Ok(())
}

fn new_line(layout: &Layout, depth: usize, out: &mut String) {
    if let Some(indent) = layout.indent {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', indent * depth));
    }
}

fn repr_string(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push(quote);
}

fn repr(value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
    if depth > DEEPEST {
        return Err(too_deep());
    }
    match value.kind() {
        ValueKind::String => repr_string(value.as_str().unwrap_or_default(), out),
        ValueKind::Map => {
            out.push('{');
            for (i, key) in value.try_iter()?.enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                repr(&key, depth + 1, out)?;
                out.push_str(": ");
                repr(&value.get_item(&key)?, depth + 1, out)?;
            }
            out.push('}');
        }
        ValueKind::Seq | ValueKind::Iterable => {
            out.push('[');
            for (i, item) in value.try_iter()?.enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                repr(&item, depth + 1, out)?;
            }
            out.push(']');
        }
        _ => return text(value, out),
    }
    Ok(())
}

/// What `{{ value }}` prints: str(value).
pub fn text(value: &Value, out: &mut String) -> Result<(), Error> {
    match value.kind() {
        ValueKind::Undefined => {}
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number => number(value, out),
        ValueKind::String => out.push_str(value.as_str().unwrap_or_default()),
        ValueKind::Map | ValueKind::Seq => repr(value, 0, out)?,
        _ => {
            let _ = write!(out, "{value}");
        }
    }
    Ok(())
}
