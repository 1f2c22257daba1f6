//! `alluxio-env.sh`, where variables for Alluxio's scripts are set. It is written for bash, so bash runs it, as those do.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;

/// Its name in the directory of the configuration.
pub(super) const NAME: &str = "alluxio-env.sh";

/// Runs the script and prints each variable with such a name, ended by a zero.
const PRINT: &str =
    r#". "$1" >&2; for name in "${!ALLUXIO_@}"; do printf '%s=%s\0' "$name" "${!name}"; done"#;

/// What a script says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Variables `ALLUXIO_*` that are not as they were before.
    pub(super) changed: HashMap<OsString, OsString>,
    /// What it printed, errors too, without blanks at the end.
    pub(super) printed: String,
}

/// What `script` makes of `variables`. Fails if it cannot be run to its end.
pub(super) fn run(script: &Path, variables: &HashMap<OsString, OsString>) -> Result<Outcome, String> {
    let output = Command::new("bash")
        .args(["--noprofile", "--norc", "-c", PRINT, "bash"])
        .arg(script)
        .env_clear()
        .envs(variables)
        .stdin(Stdio::null())
        .output()
        .map_err(|err| format!("bash, which it is for, cannot be run: {err}"))?;
    let printed = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
    if !output.status.success() {
        return Err(format!("{}: {printed}", output.status));
    }
    let pairs = output.stdout.split(|byte| *byte == 0).filter_map(pair);
    let changed = pairs.filter(|(name, value)| variables.get(*name) != Some(&(*value).to_owned()));
    let changed = changed.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Ok(Outcome { changed, printed })
}

fn pair(text: &[u8]) -> Option<(&OsStr, &OsStr)> {
    let at = text.iter().position(|byte| *byte == b'=')?;
    Some((OsStr::from_bytes(&text[..at]), OsStr::from_bytes(&text[at + 1..])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_text(text: &str, variables: &[(&str, &str)]) -> Result<Outcome, String> {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join(NAME);
        std::fs::write(&script, text).unwrap();
        let path = std::env::var_os("PATH").unwrap();
        let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        run(&script, &variables.chain([("PATH".into(), path)]).collect())
    }

    fn changed(text: &str, variables: &[(&str, &str)]) -> Vec<(String, String)> {
        let outcome = run_text(text, variables).unwrap();
        let text = |text: OsString| text.into_string().unwrap();
        let mut changed: Vec<_> =
            outcome.changed.into_iter().map(|(name, value)| (text(name), text(value))).collect();
        changed.sort();
        changed
    }

    #[test]
    fn what_a_shell_would_make_of_it_counts() {
        let text = "export ALLUXIO_FUSE_JAVA_OPTS+=\" -Da=${HOST}\"\nALLUXIO_LOGS_DIR=${ALLUXIO_LOGS_DIR:-/l}\n\
                    if true; then ALLUXIO_RAM=$(echo 1)GB; fi\nOTHER=1\n";
        let variables =
            [("ALLUXIO_FUSE_JAVA_OPTS", "-Xmx1g"), ("ALLUXIO_LOGS_DIR", "/given"), ("HOST", "me")];
        let expected = [("ALLUXIO_FUSE_JAVA_OPTS", "-Xmx1g -Da=me"), ("ALLUXIO_RAM", "1GB")];
        assert_eq!(changed(text, &variables), expected.map(|(name, value)| (name.into(), value.into())));
    }

    #[test]
    fn values_may_have_lines_and_what_is_printed_is_none_of_them() {
        assert_eq!(
            changed("echo ALLUXIO_X=1\nALLUXIO_Y=$'a\\nb=c'", &[]),
            [("ALLUXIO_Y".into(), "a\nb=c".into())]
        );
        assert_eq!(run_text("echo hello; nothing-such", &[]).unwrap().printed.lines().next(), Some("hello"));
    }

    #[test]
    fn a_script_that_ends_the_shell_is_an_error() {
        let problem = run_text("echo sorry; exit 3", &[]).unwrap_err();
        assert!(problem.contains('3') && problem.ends_with("sorry"), "{problem}");
    }
}
