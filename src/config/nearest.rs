//! Which known word somebody probably meant.

/// The word of `known` that is reached from `word` by the fewest changed letters, if these are at most `few`.
pub(super) fn nearest<'a>(
    word: &str,
    known: impl IntoIterator<Item = &'a str>,
    few: usize,
) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= few)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Letters to insert, drop, replace or swap with a neighbour.
fn distance(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.chars().collect();
    let to: Vec<char> = to.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for i in 1..=from.len() {
        let mut next = vec![i];
        for j in 1..=to.len() {
            let replaced = row[j - 1] + usize::from(from[i - 1] != to[j - 1]);
            let mut best = replaced.min(row[j] + 1).min(next[j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: [&str; 4] = ["allow_other", "allow_root", "direct_io", "ro"];

    #[test]
    fn a_slip_of_the_finger_is_found() {
        assert_eq!(nearest("allow_ohter", WORDS, 1), Some("allow_other"));
        assert_eq!(nearest("directio", WORDS, 1), Some("direct_io"));
        assert_eq!(nearest("or", WORDS, 1), Some("ro"));
    }

    #[test]
    fn a_stranger_is_not() {
        assert_eq!(nearest("compression", WORDS, 3), None);
    }
}
