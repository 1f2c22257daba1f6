//! Java's `.properties` text: names and values with the line where each begins. Knows nothing of their meaning.
//!
//! As Java reads it: comments with `#` or `!`, a backslash at the end of a line joins the next one, the name
//! ends at the first `=`, `:` or space that is not escaped, `\t \n \r \f \uXXXX` and `\` before any other
//! character. Java takes the bytes as Latin-1; here they may also be UTF-8, which is what editors write.

use std::iter::Peekable;
use std::str::Chars;

/// One `name = value`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Property {
    pub(super) name: String,
    pub(super) value: String,
    /// Line where it begins, from 1.
    pub(super) line: usize,
}

/// What cannot be read, and the line where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub(super) line: usize,
    pub(super) message: String,
}

/// All properties in the order of the file, repeated names included.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Property>, SyntaxError> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text).to_owned(),
        Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect(),
    };
    logical_lines(&text).into_iter().map(|(line, text)| parse_line(line, &text)).collect()
}

/// Lines with their continuations joined and comments and blank lines dropped.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, natural) in split_lines(text).enumerate() {
        let trimmed = natural.trim_start_matches(is_blank);
        if open.is_none() && (trimmed.is_empty() || trimmed.starts_with(['#', '!'])) {
            continue;
        }
        let (first, mut joined) = open.take().unwrap_or((index + 1, String::new()));
        let backslashes = trimmed.bytes().rev().take_while(|byte| *byte == b'\\').count();
        if backslashes % 2 == 1 {
            joined.push_str(&trimmed[..trimmed.len() - 1]);
            open = Some((first, joined));
        } else {
            joined.push_str(trimmed);
            lines.push((first, joined));
        }
    }
    lines.extend(open);
    lines
}

/// Natural lines, ended by `\n`, `\r` or `\r\n`.
fn split_lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = text.find(['\n', '\r']) else {
            rest = None;
            return Some(text);
        };
        let width = if text[end..].starts_with("\r\n") { 2 } else { 1 };
        rest = Some(&text[end + width..]);
        Some(&text[..end])
    })
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\u{c}')
}

fn parse_line(line: usize, text: &str) -> Result<Property, SyntaxError> {
    let mut chars = text.chars().peekable();
    let name = unescape(line, &mut chars, |character| is_blank(character) || matches!(character, '=' | ':'))?;
    while chars.next_if(|character| is_blank(*character)).is_some() {}
    if chars.next_if(|character| matches!(character, '=' | ':')).is_some() {
        while chars.next_if(|character| is_blank(*character)).is_some() {}
    }
    let value = unescape(line, &mut chars, |_| false)?;
    Ok(Property { name, value, line })
}

/// Takes characters up to the first unescaped one that `ends`.
fn unescape(
    line: usize,
    chars: &mut Peekable<Chars<'_>>,
    ends: impl Fn(char) -> bool,
) -> Result<String, SyntaxError> {
    let fail = |message: String| SyntaxError { line, message };
    // UTF-16 units, as `\uD83D\uDE00` is one character written as two escapes.
    let mut units: Vec<u16> = Vec::new();
    let mut pair = [0; 2];
    while let Some(character) = chars.next_if(|character| !ends(*character)) {
        let plain = if character != '\\' {
            character
        } else {
            match chars.next() {
                None => break,
                Some('u') => {
                    let digits: String = chars.by_ref().take(4).collect();
                    let unit = u16::from_str_radix(&digits, 16).ok();
                    let whole = digits.len() == 4 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
                    let unit = unit.filter(|_| whole);
                    units.push(
                        unit.ok_or_else(|| fail(format!("\\u{digits} is not \\u and four hex digits")))?,
                    );
                    continue;
                }
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('f') => '\u{c}',
                Some(other) => other,
            }
        };
        units.extend_from_slice(plain.encode_utf16(&mut pair));
    }
    String::from_utf16(&units).map_err(|_| fail("half of a \\u surrogate pair".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String, usize)> {
        let properties = parse(text.as_bytes()).unwrap();
        properties.into_iter().map(|property| (property.name, property.value, property.line)).collect()
    }

    fn pair(name: &str, value: &str, line: usize) -> (String, String, usize) {
        (name.to_owned(), value.to_owned(), line)
    }

    #[test]
    fn equals_colon_and_space_end_a_name() {
        assert_eq!(
            pairs("a=1\nb:2\nc 3\nd = 4\ne : 5\n  f\t6"),
            [
                pair("a", "1", 1),
                pair("b", "2", 2),
                pair("c", "3", 3),
                pair("d", "4", 4),
                pair("e", "5", 5),
                pair("f", "6", 6),
            ]
        );
    }

    #[test]
    fn only_the_first_separator_separates() {
        assert_eq!(
            pairs("a==b\nc = : d\nurl=http://h:1/?q=2"),
            [pair("a", "=b", 1), pair("c", ": d", 2), pair("url", "http://h:1/?q=2", 3)]
        );
    }

    #[test]
    fn comments_and_blank_lines_are_skipped_but_counted() {
        assert_eq!(
            pairs("# c\n\n ! d\r\n\r\na=1#not a comment\rb=2"),
            [pair("a", "1#not a comment", 5), pair("b", "2", 6)]
        );
    }

    #[test]
    fn a_backslash_joins_lines_and_a_doubled_one_does_not() {
        assert_eq!(
            pairs("a=1,\\\n   2,\\\n#3\nb=x\\\\\nc=3\nd=end\\"),
            [pair("a", "1,2,#3", 1), pair("b", "x\\", 4), pair("c", "3", 5), pair("d", "end", 6)]
        );
    }

    #[test]
    fn escapes_are_resolved_in_names_and_values() {
        assert_eq!(
            pairs("a\\ b\\=c=\\ d\\te\\u00e9\\uD83D\\uDE00\\q"),
            [pair("a b=c", " d\te\u{e9}\u{1f600}q", 1)]
        );
    }

    #[test]
    fn a_name_alone_has_an_empty_value() {
        assert_eq!(pairs("a\nb=\nc="), [pair("a", "", 1), pair("b", "", 2), pair("c", "", 3)]);
    }

    #[test]
    fn bad_escapes_name_their_line() {
        for text in ["x=1\ny=\\u12", "x=1\ny=\\u+123", "x=1\ny=\\uD83Dz"] {
            assert_eq!(parse(text.as_bytes()).unwrap_err().line, 2, "{text}");
        }
    }

    #[test]
    fn bytes_that_are_no_utf8_are_latin1() {
        assert_eq!(parse(b"a=\xe9").unwrap()[0].value, "\u{e9}");
        assert_eq!(parse("a=é".as_bytes()).unwrap()[0].value, "\u{e9}");
    }
}
