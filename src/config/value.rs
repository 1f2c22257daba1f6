//! A value of a known key, read once into what it means.

use std::time::Duration;

use super::keys::Kind;
use super::units;

/// What a text says, by the kind of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    List(Vec<String>),
    Flag(bool),
    Int(i64),
    /// None for a negative time.
    Duration(Option<Duration>),
    Bytes(u64),
    Sizes(Vec<u64>),
}

/// Reads `text`, or says what is allowed.
pub(super) fn parse(kind: Kind, text: &str) -> Result<Value, String> {
    let expected = |what: &str| format!("expected {what}");
    match kind {
        Kind::Text => Ok(Value::Text(text.to_owned())),
        Kind::List => Ok(Value::List(split_list(text))),
        Kind::Flag => units::flag(text).map(Value::Flag).ok_or_else(|| expected(units::FLAGS)),
        Kind::Bytes => units::bytes(text).map(Value::Bytes).ok_or_else(|| expected(units::SIZES)),
        Kind::Sizes => {
            let sizes: Option<_> = split_list(text).iter().map(|size| units::bytes(size)).collect();
            sizes.map(Value::Sizes).ok_or_else(|| expected(&format!("by commas: {}", units::SIZES)))
        }
        Kind::Timeout => match units::millis(text) {
            Some(millis) => Ok(Value::Duration(u64::try_from(millis).ok().map(Duration::from_millis))),
            None => Err(expected(units::TIMES)),
        },
        Kind::Duration => match units::millis(text).map(u64::try_from) {
            Some(Ok(millis)) => Ok(Value::Duration(Some(Duration::from_millis(millis)))),
            Some(Err(_)) => Err("expected a time that is not negative".to_owned()),
            None => Err(expected(units::TIMES)),
        },
        Kind::Int(low, high) => match text.trim().parse::<i64>() {
            Ok(number) if (low..=high).contains(&number) => Ok(Value::Int(number)),
            _ if (low, high) == (i64::MIN, i64::MAX) => Err(expected("a whole number")),
            _ => Err(format!("expected a whole number from {low} to {high}")),
        },
        Kind::Choice(words) => {
            let upper = text.trim().to_ascii_uppercase();
            if words.contains(&upper.as_str()) {
                Ok(Value::Text(upper))
            } else {
                Err(expected(&format!("one of {}", words.join(", "))))
            }
        }
    }
}

/// The elements between commas, trimmed, empty ones dropped.
pub(super) fn split_list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|element| !element.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_reads_its_notation() {
        assert_eq!(parse(Kind::Sizes, "1KB, 2"), Ok(Value::Sizes(vec![1024, 2])));
        assert!(parse(Kind::Sizes, "1KB,much").unwrap_err().contains("by commas"));
        assert_eq!(parse(Kind::List, " a, ,b ,"), Ok(Value::List(vec!["a".to_owned(), "b".to_owned()])));
        assert_eq!(parse(Kind::Int(-1, 9), " 9 "), Ok(Value::Int(9)));
        assert_eq!(parse(Kind::Choice(&["ONCE"]), "once"), Ok(Value::Text("ONCE".to_owned())));
        assert_eq!(parse(Kind::Timeout, "-1"), Ok(Value::Duration(None)));
        assert_eq!(parse(Kind::Duration, "2s"), Ok(Value::Duration(Some(Duration::from_secs(2)))));
    }

    #[test]
    fn each_kind_says_what_is_allowed() {
        let cases = [
            (Kind::Flag, "yes", "true or false"),
            (Kind::Int(1, 65_535), "0", "from 1 to 65535"),
            (Kind::Int(i64::MIN, i64::MAX), "two", "a whole number"),
            (Kind::Duration, "-1", "not negative"),
            (Kind::Duration, "10mins", "m|min|minute"),
            (Kind::Bytes, "ten", "1024-based"),
            (Kind::Choice(&["NEVER", "ONCE"]), "TWICE", "NEVER, ONCE"),
        ];
        for (kind, text, part) in cases {
            let message = parse(kind, text).unwrap_err();
            assert!(message.contains(part), "{message}");
        }
    }
}
