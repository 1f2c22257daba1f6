//! The committed list of differences: lines under headings that give a reason and quote SEMANTICS.md.
//!
//! ```text
//! ## Why it is so.
//! SEMANTICS: words that stand in SEMANTICS.md
//! doors | script | number of the call: call | the machine's answer | ours
//! ```

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

/// One answer that differs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Difference {
    pub(crate) script: String,
    pub(crate) nth: usize,
    pub(crate) call: String,
    pub(crate) expected: String,
    pub(crate) answer: String,
    pub(crate) doors: String,
}

impl Difference {
    fn line(&self) -> String {
        let Difference { script, nth, call, expected, answer, doors } = self;
        format!("{doors} | {script} | {nth}: {call} | {expected} | {answer}")
    }
}

/// A reason, and the lines that it explains.
struct Section {
    heading: Vec<String>,
    lines: Vec<String>,
}

/// The file.
pub(crate) struct Differences {
    sections: Vec<Section>,
}

/// Above what nobody has explained yet.
const UNEXPLAINED: &str = "## Not explained.";

impl Differences {
    pub(crate) fn read() -> Differences {
        let text = fs::read_to_string(path("tests/differential/differences")).unwrap();
        let mut sections: Vec<Section> = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with("# ")) {
            if line.starts_with("## ") {
                sections.push(Section { heading: vec![line.to_owned()], lines: Vec::new() });
                continue;
            }
            let section = sections.last_mut().expect("the file begins with a heading");
            if line.starts_with("SEMANTICS: ") { &mut section.heading } else { &mut section.lines }
                .push(line.to_owned());
        }
        Differences { sections }
    }

    /// Panics unless `found` is what the file lists of scripts that were `run`, every heading has lines, and what it
    /// quotes is there.
    pub(crate) fn compare(mut self, found: &BTreeSet<Difference>, run: impl Fn(&str) -> bool) {
        let mut found: BTreeMap<String, &Difference> = found.iter().map(|one| (one.line(), one)).collect();
        let mut gone = Vec::new();
        for section in &mut self.sections {
            section.lines.retain(|line| {
                let script = line.split(" | ").nth(1);
                let there = found.remove(line).is_some() || script.is_some_and(|script| !run(script));
                if !there {
                    gone.push(line.clone());
                }
                there
            });
        }
        let new: Vec<String> = found.into_keys().collect();
        if std::env::var("ALLUXIO_TEST_DIFFERENCES").is_ok_and(|word| word == "write") {
            self.write(&new);
        }
        let mut wrong = self.badly_explained();
        wrong.extend(gone.iter().map(|line| format!("no longer so: {line}")));
        wrong.extend(new.iter().map(|line| format!("not explained: {line}")));
        let count = wrong.len();
        wrong.truncate(60);
        assert!(wrong.is_empty(), "{count} differences are not as listed:\n{}", wrong.join("\n"));
    }

    fn badly_explained(&self) -> Vec<String> {
        let semantics = fs::read_to_string(path("SEMANTICS.md")).unwrap();
        let mut wrong = Vec::new();
        for section in &self.sections {
            let quotes: Vec<_> =
                section.heading.iter().filter_map(|line| line.strip_prefix("SEMANTICS: ")).collect();
            if section.heading[0] == UNEXPLAINED || quotes.is_empty() {
                wrong.push(format!("no reason: {}", section.heading[0]));
            }
            if section.lines.is_empty() {
                wrong.push(format!("explains nothing: {}", section.heading[0]));
            }
            wrong.extend(
                quotes
                    .iter()
                    .filter(|quote| !semantics.contains(**quote))
                    .map(|quote| format!("not in SEMANTICS.md: {quote}")),
            );
        }
        wrong
    }

    fn write(&self, new: &[String]) {
        let mut text = HEAD.to_owned();
        for section in &self.sections {
            let mut lines = section.lines.clone();
            lines.sort();
            text.push_str(&format!("\n{}\n{}\n", section.heading.join("\n"), lines.join("\n")));
        }
        if !new.is_empty() {
            text.push_str(&format!("\n{UNEXPLAINED}\n{}\n", new.join("\n")));
        }
        fs::write(path("tests/differential/differences"), text).unwrap();
    }
}

const HEAD: &str = "\
# Where a mount answers otherwise than the machine's own file system, and why: see differences.rs.
# doors | script | number of the call: call | the machine's answer | the mount's
";

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}
