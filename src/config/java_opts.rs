//! `-Dname=value` in the text of ALLUXIO_JAVA_OPTS and the like. Every other word is for a Java machine and is
//! passed over.

/// The `-D` pairs in their order; a `-Dname` alone has an empty value, as in Java.
pub(super) fn system_properties(text: &str) -> Result<Vec<(String, String)>, String> {
    let words = split_words(text)?;
    let pairs = words.iter().filter_map(|word| word.strip_prefix("-D")).filter(|pair| !pair.is_empty());
    Ok(pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
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
        system_properties(text).unwrap()
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
    fn an_open_quote_is_an_error() {
        assert_eq!(system_properties("-Da='b"), Err("quote ' is not closed".to_owned()));
    }
}
