//! The figures of all rounds, and the table that is made of them.

use std::collections::BTreeMap;
use std::process::Command;

use crate::work;

pub(crate) struct Results {
    sides: Vec<String>,
    /// What each job gave on each side, round by round, in the order in which the jobs first came.
    rows: Vec<Row>,
}

struct Row {
    job: String,
    unit: &'static str,
    rates: BTreeMap<String, Vec<Option<f64>>>,
}

impl Results {
    pub(crate) fn new(sides: &[&str]) -> Results {
        Results { sides: sides.iter().map(|&side| side.to_owned()).collect(), rows: Vec::new() }
    }

    /// One figure more of `job`; none if it failed.
    pub(crate) fn add(&mut self, job: &str, unit: &'static str, side: &str, rate: Option<f64>) {
        let at = self.rows.iter().position(|row| row.job == job).unwrap_or_else(|| {
            self.rows.push(Row { job: job.to_owned(), unit, rates: BTreeMap::new() });
            self.rows.len() - 1
        });
        self.rows[at].rates.entry(side.to_owned()).or_default().push(rate);
    }

    pub(crate) fn has_failed(&self, side: &str) -> bool {
        self.rows.iter().any(|row| row.of(side).contains(&None))
    }

    /// Prints the table as Markdown; `settings` says what was measured. The first side is the one that is compared.
    pub(crate) fn print(&self, settings: &str) {
        let caches = if work::can_drop_caches() { "dropped" } else { "NOT dropped (not root)" };
        self.print_with(settings, &format!("kernel caches {caches} before reading"));
    }

    /// The same; `caches` says what the caches held.
    pub(crate) fn print_with(&self, settings: &str, caches: &str) {
        println!("### {}, {}\n", said_by("date", &["-u", "+%Y-%m-%d %H:%M UTC"]), machine());
        println!("commit {}; {settings}.", said_by("git", &["rev-parse", "--short", "HEAD"]));
        println!("Median (lowest-highest) of the rounds, more is better; {caches}.\n");
        let others = &self.sides[1..];
        let ratios: Vec<String> = others.iter().map(|other| format!("{}/{other}", self.sides[0])).collect();
        println!("| | {} | {} |", self.sides.join(" | "), ratios.join(" | "));
        println!("|---|{}", "---:|".repeat(self.sides.len() + others.len()));
        for row in &self.rows {
            let cells: Vec<String> = self.sides.iter().map(|side| cell(row.of(side))).collect();
            let ours = median(row.of(&self.sides[0]));
            let ratios: Vec<String> = others.iter().map(|side| ratio(ours, median(row.of(side)))).collect();
            let name =
                if row.unit.is_empty() { row.job.to_owned() } else { format!("{}, {}", row.job, row.unit) };
            println!("| {name} | {} | {} |", cells.join(" | "), ratios.join(" | "));
        }
    }
}

impl Row {
    /// The figures of a side; of some rows not every side has any.
    fn of(&self, side: &str) -> &[Option<f64>] {
        self.rates.get(side).map_or(&[], Vec::as_slice)
    }
}

fn cell(rates: &[Option<f64>]) -> String {
    if rates.is_empty() {
        return "-".to_owned();
    }
    let good = sorted(rates);
    let failed = rates.len() - good.len();
    let (Some(low), Some(high), Some(median)) = (good.first(), good.last(), median(rates)) else {
        return "failed".to_owned();
    };
    let note = if failed > 0 { format!(", {failed} failed") } else { String::new() };
    format!("{} ({}-{}{note})", figure(median), figure(*low), figure(*high))
}

fn ratio(ours: Option<f64>, other: Option<f64>) -> String {
    match (ours, other) {
        (Some(ours), Some(other)) if ours < other / 10.0 => format!("{:.4}", ours / other),
        (Some(ours), Some(other)) => format!("{:.2}", ours / other),
        _ => "-".to_owned(),
    }
}

fn median(rates: &[Option<f64>]) -> Option<f64> {
    let good = sorted(rates);
    let high = *good.get(good.len() / 2)?;
    let low = good[(good.len() - 1) / 2];
    Some(f64::midpoint(low, high))
}

fn sorted(rates: &[Option<f64>]) -> Vec<f64> {
    let mut good: Vec<f64> = rates.iter().copied().flatten().collect();
    good.sort_by(f64::total_cmp);
    good
}

/// Three digits that count, thousands by `k`.
fn figure(rate: f64) -> String {
    match rate {
        _ if rate >= 100_000.0 => format!("{:.0}k", rate / 1e3),
        _ if rate >= 10_000.0 => format!("{:.1}k", rate / 1e3),
        _ if rate >= 100.0 => format!("{rate:.0}"),
        _ if rate < 10.0 => format!("{rate:.2}"),
        _ => format!("{rate:.1}"),
    }
}

fn machine() -> String {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models: Vec<&str> = cpus
        .lines()
        .filter_map(|line| line.strip_prefix("model name"))
        .map(|rest| rest.trim_start_matches([' ', '\t', ':']))
        .collect();
    let model = models.first().copied().unwrap_or("unknown processor");
    let kernel = said_by("uname", &["-r"]);
    format!("{} x {model}, kernel {kernel}", models.len().max(1))
}

/// The first line that a command prints.
fn said_by(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}
