//! `-Dname=value` in the text of ALLUXIO_JAVA_OPTS and the like. Every other word is for a Java machine and is
//! passed over.
//!
//! `$NAME` and `${NAME}` stand for variables, where there is one of that name: Alluxio's image has a shell read the text,
//! and its charts for Kubernetes rely on that. Properties are referred to in the same way, but their names have dots.

/// The `-D` pairs in their order; a `-Dname` alone has an empty value, as in Java. `variable` gives the value of one that
/// is set.
pub(super) fn system_properties<'a>(
    text: &str,
    variable: impl Fn(&str) -> Option<&'a str>,
) -> Result<Vec<(String, String)>, String> {
    let words = split_words(&expand(text, variable))?;
    let pairs = words.iter().filter_map(|word| word.strip_prefix("-D")).filter(|pair| !pair.is_empty());
    Ok(pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}

/// `text` with the values of variables in the place of their names, but not between single quotes or behind a backslash.
fn expand<'a>(text: &str, variable: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut expanded = String::new();
    let (mut single, mut double) = (false, false);
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let mut length = character.len_utf8();
        match character {
            '\'' if !double => single = !single,
            '"' if !single => double = !double,
            '\\' if !single => length += rest[length..].chars().next().map_or(0, char::len_utf8),
            '$' if !single => {
                if let Some((name, end)) = reference(rest)
                    && let Some(value) = variable(name)
                {
                    expanded.push_str(value);
                    rest = &rest[end..];
                    continue;
                }
            }
            _ => {}
        }
        expanded.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    expanded
}

/// The name of the variable that `text`, which begins with a dollar, begins with, and where that reference ends.
fn reference(text: &str) -> Option<(&str, usize)> {
    let inner = text.strip_prefix("${");
    let name = inner.unwrap_or(&text[1..]);
    let length = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(name.len());
    let is_name = length > 0 && !name.starts_with(|c: char| c.is_ascii_digit());
    let is_closed = inner.is_none() || name[length..].starts_with('}');
    let braces = if inner.is_some() { 2 } else { 0 };
    (is_name && is_closed).then(|| (&name[..length], 1 + length + braces))
}

/// Words as a shell splits them: blanks separate, quotes and backslashes keep.
fn split_words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    while let Some(character) = chars.next() {
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (Some('\''), _) => word.get_or_insert_default().push(character),
            (_, '\\') => word.get_or_insert_default().extend(chars.next()),
            (Some(_), _) => word.get_or_insert_default().push(character),
            (None, '\'' | '"') => {
                word.get_or_insert_default();
                quote = Some(character);
            }
            (None, _) if character.is_whitespace() => words.extend(word.take()),
            (None, _) => word.get_or_insert_default().push(character),
        }
    }
    match quote {
        Some(open) => Err(format!("quote {open} is not closed")),
        None => {
            words.extend(word);
            Ok(words)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        system_properties(text, |name| (name == "HOST_1").then_some("me here")).unwrap()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn only_d_words_count() {
        let text = "-server -Xmx1G -Da.b=c -XX:MaxDirectMemorySize=4g\n -Dx=1=2  -Dflag -D";
        assert_eq!(pairs(text), [pair("a.b", "c"), pair("x", "1=2"), pair("flag", "")]);
    }

    #[test]
    fn quotes_and_backslashes_keep_blanks() {
        let text = r#"-Da="x y" '-Db=p "q"' -Dc=m\ n -Dd='' -De="\"""#;
        assert_eq!(
            pairs(text),
            [pair("a", "x y"), pair("b", "p \"q\""), pair("c", "m n"), pair("d", ""), pair("e", "\"")]
        );
    }

    #[test]
    fn variables_that_are_set_are_put_in() {
        let text = r#"-Da="${HOST_1}-x" -Db=$HOST_1 -Dc='$HOST_1' -Dd=\$HOST_1 -De=${OTHER}$ -Df=${a.b}${HOST_1 -Dg=$1"#;
        let expected = [
            ("a", "me here-x"),
            ("b", "me"),
            ("c", "$HOST_1"),
            ("d", "$HOST_1"),
            ("e", "${OTHER}$"),
            ("f", "${a.b}${HOST_1"),
            ("g", "$1"),
        ];
        assert_eq!(pairs(text), expected.map(|(name, value)| pair(name, value)));
    }

    #[test]
    fn an_open_quote_is_an_error() {
        assert_eq!(system_properties("-Da='b", |_| None), Err("quote ' is not closed".to_owned()));
    }
}
