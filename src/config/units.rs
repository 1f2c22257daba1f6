//! Alluxio's notations for times, sizes and switches.

/// What [`millis`] takes, for messages.
pub(super) const TIMES: &str =
    "a whole number with ms|millisecond, s|sec|second, m|min|minute, h|hr|hour or d|day (none: ms)";
/// What [`bytes`] takes, for messages.
pub(super) const SIZES: &str = "a number with b, k|kb, m|mb, g|gb, t|tb or p|pb (1024-based, none: bytes)";
/// What [`flag`] takes, for messages.
pub(super) const FLAGS: &str = "true or false";

/// Milliseconds, possibly negative. Words are singular, numbers whole: `10mins` and `1.5h` are not times.
pub(super) fn millis(text: &str) -> Option<i64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.bytes().skip(usize::from(text.starts_with('-'))).take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits + usize::from(text.starts_with('-')));
    let factor = match unit.trim_start() {
        "" | "ms" | "millisecond" => 1,
        "s" | "sec" | "second" => 1_000,
        "m" | "min" | "minute" => 60_000,
        "h" | "hr" | "hour" => 3_600_000,
        "d" | "day" => 86_400_000,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(factor)
}

/// Bytes, rounded down if the number has decimals.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim_start() {
        "" | "b" => 0,
        "k" | "kb" | "kib" | "ki" => 10,
        "m" | "mb" | "mib" | "mi" => 20,
        "g" | "gb" | "gib" | "gi" => 30,
        "t" | "tb" | "tib" | "ti" => 40,
        "p" | "pb" | "pib" | "pi" => 50,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << shift);
    }
    let decimal: f64 = number.parse().ok()?;
    let exact = decimal * (1_u64 << shift) as f64;
    (exact < u64::MAX as f64).then_some(exact as u64)
}

/// `true` or `false`, in any case.
pub(super) fn flag(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_alluxios_units() {
        let cases = [
            ("0", 0),
            ("250", 250),
            ("-1", -1),
            ("250ms", 250),
            ("3sec", 3_000),
            ("3S", 3_000),
            ("5 second", 5_000),
            ("2min", 120_000),
            ("3m", 180_000),
            ("1hr", 3_600_000),
            (" 2hour ", 7_200_000),
            ("1day", 86_400_000),
        ];
        for (text, expected) in cases {
            assert_eq!(millis(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn plurals_decimals_and_garbage_are_no_times() {
        for text in
            ["", "10mins", "5seconds", "1.5h", "s", "-", "--1", "1 2", "+1", "9223372036854775807s", "1µs"]
        {
            assert_eq!(millis(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_1024_based_with_decimals() {
        let cases = [
            ("0", 0),
            ("17", 17),
            ("17b", 17),
            ("1k", 1 << 10),
            ("64MB", 64 << 20),
            ("1.5GB", 3 << 29),
            ("1gib", 1 << 30),
            ("2 TB", 2 << 40),
            ("1Pi", 1 << 50),
        ];
        for (text, expected) in cases {
            assert_eq!(bytes(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn garbage_is_no_size() {
        for text in ["", "MB", "-1", "1.2.3", ".", "1eb", "16384pb", "99999999999.5pb", "1 k b"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }

    #[test]
    fn switches_are_true_or_false() {
        assert_eq!(flag("TRUE"), Some(true));
        assert_eq!(flag("false "), Some(false));
        assert_eq!(flag("yes"), None);
        assert_eq!(flag(""), None);
    }
}
