//! `alluxio-fuse doctor`.

use std::process::ExitCode;

use super::args::DoctorArgs;
use super::complain;
use super::out;
use crate::config::Config;
use crate::config::Environment;
use crate::config::command_line_properties;
use crate::config::keys;
use crate::mount;
use crate::mount::Failure;
use crate::mount::Finding;
use crate::mount::Verdict;

pub(super) fn run(args: &DoctorArgs) -> ExitCode {
    let findings = match load(args) {
        Ok(config) => mount::examine(config),
        Err(failure) => {
            complain(failure);
            return ExitCode::FAILURE;
        }
    };
    if args.json {
        let lines: Vec<String> = findings.iter().map(|finding| format!("  {}", json(finding))).collect();
        out(format_args!("[\n{}\n]", lines.join(",\n")));
    } else {
        for finding in &findings {
            let cure = finding.cure.as_ref().map_or_else(String::new, |cure| format!(" -> {cure}"));
            out(format_args!("{:<7}  {}: {}{cure}", finding.verdict, finding.subject, finding.text));
        }
    }
    match findings.iter().map(|finding| finding.verdict).max() {
        Some(Verdict::Problem) => ExitCode::FAILURE,
        Some(Verdict::Ok | Verdict::Warning) | None => ExitCode::SUCCESS,
    }
}

fn load(args: &DoctorArgs) -> Result<Config, Failure> {
    let mut properties = command_line_properties(&args.options)?;
    if let Some(point) = &args.point {
        properties.push((keys::FUSE_MOUNT_POINT.name.to_owned(), point.clone()));
    }
    Ok(Config::load(Environment::of_process(), &properties)?)
}

fn json(finding: &Finding) -> String {
    let cure = finding.cure.as_ref().map_or_else(|| "null".to_owned(), |cure| quoted(cure));
    format!(
        "{{\"verdict\": \"{}\", \"subject\": {}, \"text\": {}, \"cure\": {cure}}}",
        finding.verdict,
        quoted(&finding.subject),
        quoted(&finding.text)
    )
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
