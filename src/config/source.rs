//! Where a setting came from, which decides who wins, and how to say it.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

/// How strong a setting is: Alluxio's order, the later ones win.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Built into the program.
    Default,
    /// What the cluster's master uses.
    ClusterDefault,
    /// `alluxio-site.properties`.
    SiteProperty,
    /// `-D` in the Java options, or an environment variable that stands for one.
    SystemProperty,
    /// The command line.
    Runtime,
    /// What the master says for a path. Stronger than all else, as in Alluxio.
    PathDefault,
}

/// The place where somebody would have to change a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    BuiltIn,
    /// Given by the master.
    Master,
    /// Given by the master for everything at and below a path.
    MasterForPath(String),
    /// A line of a property file.
    File(PathBuf, usize),
    /// An environment variable.
    Variable(Cow<'static, str>),
    /// `-o` or a positional argument.
    CommandLine,
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => out.write_str("built-in default"),
            Self::Master => out.write_str("cluster default"),
            Self::MasterForPath(path) => write!(out, "cluster setting for {path}"),
            Self::File(path, line) => write!(out, "{}:{line}", path.display()),
            Self::Variable(name) => write!(out, "environment variable {name}"),
            Self::CommandLine => out.write_str("command line"),
        }
    }
}
