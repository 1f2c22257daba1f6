//! The grammar of the command line.

use clap::Args;
use clap::Parser;
use clap::Subcommand;

/// Mounts a path of an Alluxio cluster, or a local directory, as a file system.
#[derive(Debug, Parser)]
#[command(name = "alluxio-fuse", version, max_term_width = 100)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Mount a path of Alluxio, or a local directory
    Mount(MountArgs),
    /// End a mount
    #[command(visible_alias = "umount")]
    Unmount(UnmountArgs),
    /// List the mounts of this machine
    Stat,
    /// Show what the settings are, and where each comes from
    Config(ConfigArgs),
    /// Look for what keeps a mount from working
    Doctor(DoctorArgs),
    /// Mount in the foreground, as the entry point of a container
    ///
    /// Each variable ALLUXIO_<NAME> stands for the property alluxio.<name>, as in Alluxio's own image.
    Fuse(FuseArgs),
    /// Bring files into the data cache of a mount, or look how much of them is there
    Preload(PreloadArgs),
    /// Show everything that a mount has counted
    Stats(ShownArgs),
    /// Watch what a mount does: operations, rates, latencies, files, callers
    Top(TopArgs),
    /// Print the operations of a mount as they end
    Trace(TraceArgs),
    /// Show what each thread of a mount does now, and since when
    Threads(ShownArgs),
    /// Draw where a mount spends its time, as a flame graph
    Profile(ProfileArgs),
    /// Change how much a mount logs, until it ends
    Loglevel(LoglevelArgs),
    /// Print a script that completes this command's words in a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a directory
    #[command(hide = true)]
    Man {
        /// The directory, which must exist
        dir: std::path::PathBuf,
    },
    /// Ask a mount for its capacity, which its process answers by itself
    #[command(hide = true)]
    Probe {
        /// Where it is mounted
        point: std::path::PathBuf,
    },
    /// Print the reference page of properties
    #[command(hide = true)]
    Properties,
}

impl Arguments {
    /// Arguments of `mount` that nobody gave.
    pub(super) fn mount() -> MountArgs {
        match Self::try_parse_from(["alluxio-fuse", "mount"]) {
            Ok(Self { command: Command::Mount(args) }) => args,
            other => unreachable!("`mount` needs no arguments: {other:?}"),
        }
    }
}

#[derive(Args, Debug)]
pub(super) struct ConfigArgs {
    /// Options as they would be given to `mount`
    #[arg(short = 'o', long, value_name = "OPTIONS")]
    pub(super) options: Vec<String>,

    /// Do not ask the master for the cluster's settings
    #[arg(long)]
    pub(super) offline: bool,

    /// Show these properties only
    #[arg(value_name = "PROPERTY")]
    pub(super) names: Vec<String>,
}

#[derive(Args, Debug)]
pub(super) struct DoctorArgs {
    /// Options as they would be given to `mount`
    #[arg(short = 'o', long, value_name = "OPTIONS")]
    pub(super) options: Vec<String>,

    /// Print findings as JSON: an array of objects with verdict (ok, warning, problem), subject, text and cure
    #[arg(long)]
    pub(super) json: bool,

    /// Where somebody wants to mount
    #[arg(value_name = "MOUNT_POINT")]
    pub(super) point: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct PreloadArgs {
    /// Only say how much of the files is in the cache
    #[arg(long, conflicts_with = "evict")]
    pub(super) check: bool,

    /// Drop the files from the cache
    #[arg(long)]
    pub(super) evict: bool,

    /// Files read at a time
    #[arg(short = 'j', long, value_name = "COUNT", default_value_t = 8,
          value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) jobs: u16,

    /// Also if the files take more than the cache holds
    #[arg(long)]
    pub(super) force: bool,

    /// Files and directories in mounts that have a data cache
    #[arg(value_name = "PATH", required = true)]
    pub(super) paths: Vec<std::path::PathBuf>,
}

/// What is shown once, as text or as JSON.
#[derive(Args, Debug)]
pub(super) struct ShownArgs {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,

    /// The mount, which may be left out if there is only one
    #[arg(value_name = "MOUNT_POINT")]
    pub(super) point: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct TopArgs {
    /// Print one page of text and end, as without a terminal
    #[arg(long)]
    pub(super) once: bool,

    /// Between two pages
    #[arg(short = 'd', long, value_name = "SECONDS", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(1..=60))]
    pub(super) delay: u64,

    /// The mount, which may be left out if there is only one
    #[arg(value_name = "MOUNT_POINT")]
    pub(super) point: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct TraceArgs {
    /// Only these operations: `--op read,write`
    #[arg(long, value_name = "OPERATION", value_delimiter = ',')]
    pub(super) op: Vec<String>,

    /// Only this path of the mount and what is below it, or what a pattern with `*` and `?` matches
    #[arg(long, value_name = "PATH")]
    pub(super) path: Option<String>,

    /// Only what took as long: `10ms`, `500us`, `2s`
    #[arg(long, value_name = "TIME", value_parser = micros)]
    pub(super) slower_than: Option<u64>,

    /// Only what this process asks for
    #[arg(long, value_name = "PID")]
    pub(super) pid: Option<u32>,

    /// End after so many
    #[arg(long, value_name = "COUNT")]
    pub(super) count: Option<u64>,

    /// The mount, which may be left out if there is only one
    #[arg(value_name = "MOUNT_POINT")]
    pub(super) point: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct ProfileArgs {
    /// For how long
    #[arg(short = 'd', long, value_name = "SECONDS", default_value_t = 30,
          value_parser = clap::value_parser!(u64).range(1..=300))]
    pub(super) duration: u64,

    /// The file that is written
    #[arg(short = 'f', long, value_name = "FILE", default_value = "profile.svg")]
    pub(super) file: std::path::PathBuf,

    /// What threads wait for, rather than what processors do
    #[arg(long)]
    pub(super) off_cpu: bool,

    /// The mount, which may be left out if there is only one
    #[arg(value_name = "MOUNT_POINT")]
    pub(super) point: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct LoglevelArgs {
    /// Only this part of the program, as its lines in the log name it: `answer`
    #[arg(long, value_name = "NAME", default_value = "root")]
    pub(super) name: String,

    /// off, error, warn, info, debug or trace
    #[arg(value_name = "LEVEL")]
    pub(super) level: String,

    /// The mount, which may be left out if there is only one
    #[arg(value_name = "MOUNT_POINT")]
    pub(super) point: Option<String>,
}

/// A time in microseconds, of a number and its unit.
fn micros(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: f64 = digits.parse().map_err(|_| format!("{text} is no time, give one such as 10ms"))?;
    let unit = match &text[digits.len()..] {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        unit => return Err(format!("{unit:?} is no unit of time: give us, ms or s")),
    };
    Ok((number * unit).max(0.0) as u64)
}

#[derive(Args, Debug)]
pub(super) struct FuseArgs {
    /// Mount options and properties, comma separated
    #[arg(long, value_name = "OPTIONS")]
    pub(super) fuse_opts: Vec<String>,

    /// Directory to mount at, or else the variable MOUNT_POINT, or the property alluxio.fuse.mount.point
    #[arg(value_name = "MOUNT_POINT", env = "MOUNT_POINT")]
    pub(super) point: Option<String>,

    /// Path of Alluxio to show, or else the variable ALLUXIO_PATH, or the property alluxio.fuse.mount.alluxio.path
    #[arg(value_name = "PATH", env = "ALLUXIO_PATH")]
    pub(super) path: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct MountArgs {
    /// Stay in the foreground, with the log on the terminal
    #[arg(short = 'n', long)]
    pub(super) foreground: bool,

    /// Mount options and properties, comma separated: `-o allow_other,alluxio.user.file.writetype.default=THROUGH`
    ///
    /// May be repeated. Options replace those of the property alluxio.fuse.mount.options, `direct_io` unless set.
    /// `\,` is a comma within a value.
    #[arg(short = 'o', long, value_name = "OPTIONS")]
    pub(super) options: Vec<String>,

    /// Longest wait for the mount to answer
    #[arg(short = 't', long, value_name = "SECONDS", default_value_t = 180,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(super) timeout: u64,

    /// Keep the number of the process that serves the mount in this file
    #[arg(long, value_name = "FILE")]
    pub(super) pid_file: Option<std::path::PathBuf>,

    /// For the process that serves a mount in the background
    #[arg(long, hide = true)]
    pub(super) daemon: bool,

    /// The source in the list of mounts, unless the options name one
    #[arg(long, hide = true, value_name = "NAME")]
    pub(super) fs_name: Option<String>,

    /// Leave what is mounted there as it is, as mount(8) expects it
    #[arg(skip)]
    pub(super) keep_previous: bool,

    /// Make the directory to mount at if it is missing, as Alluxio's Java process does
    #[arg(skip)]
    pub(super) make_point: bool,

    /// Directory to mount at, or else the property alluxio.fuse.mount.point
    #[arg(value_name = "MOUNT_POINT")]
    pub(super) point: Option<String>,

    /// Path of Alluxio to show, or file:///dir for a local directory, or else the property
    /// alluxio.fuse.mount.alluxio.path
    #[arg(value_name = "PATH")]
    pub(super) path: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct UnmountArgs {
    /// Kill its process, whatever that waits for. What is being written is lost, as it is without this unless
    /// alluxio.fuse.umount.timeout is set
    #[arg(short = 'f', long)]
    pub(super) force: bool,

    /// Longest wait for the mount to end
    #[arg(short = 'w', long, value_name = "SECONDS", default_value_t = 120,
          value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub(super) wait: u64,

    /// Where it is mounted, or else the property alluxio.fuse.mount.point
    #[arg(value_name = "MOUNT_POINT")]
    pub(super) point: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn mount(words: &[&str]) -> MountArgs {
        let words = ["alluxio-fuse", "mount"].iter().chain(words);
        match Arguments::try_parse_from(words).unwrap().command {
            Command::Mount(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_grammar_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn options_may_stand_anywhere_and_be_repeated() {
        let orders: [&[&str]; 3] = [
            &["-n", "-o", "a,b=c", "-o", "d", "-t", "9", "/mnt", "/people"],
            &["/mnt", "-o", "a,b=c", "/people", "-n", "-t9", "-od"],
            &["/mnt", "/people", "-nt", "9", "-o", "a,b=c", "-o=d"],
        ];
        for order in orders {
            let args = mount(order);
            assert!(args.foreground);
            assert_eq!(args.timeout, 9);
            assert_eq!(args.options, ["a,b=c", "d"]);
            assert_eq!((args.point.as_deref(), args.path.as_deref()), (Some("/mnt"), Some("/people")));
        }
    }

    #[test]
    fn times_have_units() {
        assert_eq!([micros("10ms"), micros("1.5s"), micros("7us")], [Ok(10_000), Ok(1_500_000), Ok(7)]);
        assert!(micros("10").unwrap_err().contains("no unit"));
        assert!(micros("ms").unwrap_err().contains("no time"));
    }

    #[test]
    fn both_places_may_be_left_out() {
        let args = mount(&[]);
        assert_eq!((args.point, args.path, args.foreground), (None, None, false));
    }

    #[test]
    fn umount_is_unmount() {
        for name in ["umount", "unmount"] {
            let words = ["alluxio-fuse", name, "-f", "/mnt", "-w", "5"];
            match Arguments::try_parse_from(words).unwrap().command {
                Command::Unmount(args) => {
                    assert!(args.force);
                    assert_eq!((args.wait, args.point.as_deref()), (5, Some("/mnt")));
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
