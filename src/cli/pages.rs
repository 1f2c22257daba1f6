//! Pages that are made from the definitions of the command line and of the properties, so that they cannot differ:
//! completions, manual pages, the reference of properties.

use std::fmt::Write;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use super::args::Arguments;
use super::complain;
use super::out;
use crate::config::keys;
use crate::config::keys::Kind;
use crate::config::keys::Scope;

/// Prints what `shell` is to read.
pub(super) fn completions(shell: Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "alluxio-fuse", &mut script);
    out(String::from_utf8_lossy(&script).trim_end());
    ExitCode::SUCCESS
}

/// Writes a page for the program and one for each of its commands.
pub(super) fn manual(dir: &Path) -> ExitCode {
    match write_manual(dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            complain(format_args!("cannot write manual pages to {}: {err}", dir.display()));
            ExitCode::FAILURE
        }
    }
}

fn write_manual(dir: &Path) -> io::Result<()> {
    clap_mangen::generate_to(Arguments::command().disable_help_subcommand(true), dir)
}

/// Prints the reference of properties.
pub(super) fn properties() -> ExitCode {
    out(reference().trim_end());
    ExitCode::SUCCESS
}

/// A page of Markdown, made of the table that the program reads properties by.
fn reference() -> String {
    let mut page = String::from(
        "# Properties\n\n\
         Made by `alluxio-fuse properties` from the table that the program itself goes by. Others of Alluxio's \
         properties are accepted and have no effect. A property marked with * can also be set in the cluster, for all \
         its clients. Times are whole numbers with ms, s, min, h or d (ms without a unit), sizes have B, KB, MB, GB, \
         TB or PB, which are powers of 1024.\n\n\
         | property | default | values | what it is for |\n|---|---|---|---|\n",
    );
    let mut all: Vec<_> = keys::all().collect();
    all.sort_by_key(|key| key.name);
    for key in all {
        let star = if key.scope == Scope::Client { " *" } else { "" };
        let default = key.default.map_or_else(|| "not set".to_owned(), |default| format!("`{default}`"));
        let aliases: Vec<_> = key.aliases.iter().map(|alias| format!("`{alias}`")).collect();
        let was = if aliases.is_empty() { String::new() } else { format!(" Older: {}.", aliases.join(", ")) };
        writeln!(page, "| `{}`{star} | {default} | {} | {}{was} |", key.name, values(key.kind), key.about())
            .expect("writing to a string cannot fail");
    }
    page
}

fn values(kind: Kind) -> String {
    match kind {
        Kind::Text => "text".to_owned(),
        Kind::List => "list, by commas".to_owned(),
        Kind::Sizes => "sizes, by commas".to_owned(),
        Kind::Flag => "`true`, `false`".to_owned(),
        Kind::Int(i64::MIN, i64::MAX) => "number".to_owned(),
        Kind::Int(min, max) => format!("{min} to {max}"),
        Kind::Duration => "time".to_owned(),
        Kind::Timeout => "time, negative for none".to_owned(),
        Kind::Bytes => "size".to_owned(),
        Kind::Choice(words) => words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_in_the_documents_is_up_to_date() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/properties.md");
        let written = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(written == reference(), "run `cargo run -- properties > docs/properties.md`");
    }

    #[test]
    fn every_command_has_a_manual_page() {
        let dir = tempfile::tempdir().unwrap();
        write_manual(dir.path()).unwrap();
        for page in
            ["alluxio-fuse.1", "alluxio-fuse-mount.1", "alluxio-fuse-unmount.1", "alluxio-fuse-doctor.1"]
        {
            let text = std::fs::read_to_string(dir.path().join(page)).unwrap_or_default();
            assert!(text.contains(".SH SYNOPSIS"), "{page}");
        }
    }
}
