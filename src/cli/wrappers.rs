//! Command lines of others that mean `mount`: the flags of Alluxio's Java process, for wrappers that start it directly,
//! and the words that mount(8) gives to a helper, for `mount -t fuse.alluxio-fuse` and `/etc/fstab`.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::path::Path;

use clap::Parser;

use super::args::Arguments;
use super::args::MountArgs;
use crate::config::command_line_properties;
use crate::config::keys;

/// What mount(8) calls a helper: `mount.` and the type.
const HELPERS: [&str; 2] = ["mount.fuse.alluxio-fuse", "mount.alluxio-fuse"];

/// Words of `/etc/fstab` that are for mount(8) and systemd alone.
const FSTAB_WORDS: [&str; 12] = [
    "_netdev", "auto", "defaults", "group", "noauto", "nofail", "nogroup", "noowner", "nouser", "owner",
    "user", "users",
];

/// Words that mount(8) and libfuse's helper give by themselves, for what nobody asked them.
const UNASKED: [&str; 5] = ["async", "dev", "exec", "rw", "suid"];

/// Words of another command line.
#[derive(Debug)]
pub(super) enum Wrapper {
    /// Those of the Java process.
    Direct(Direct),
    /// Those of mount(8).
    Helper(Helper),
}

/// The flags of `alluxio.fuse.AlluxioFuse`.
#[derive(Debug, Parser)]
#[command(
    name = "alluxio-fuse",
    version,
    about = "Mounts in the foreground, with the flags of Alluxio's Java process"
)]
pub(super) struct Direct {
    /// Directory to mount at
    #[arg(short = 'm', long = "mount-point", value_name = "DIR")]
    point: Option<String>,

    /// Path of Alluxio to show
    #[arg(short = 'a', long = "alluxio-path", value_name = "PATH", conflicts_with = "ufs")]
    path: Option<String>,

    /// Directory of this machine to show, without a cluster
    #[arg(short = 'u', long = "root-ufs", value_name = "UFS")]
    ufs: Option<String>,

    /// Mount options and properties, comma separated
    #[arg(short = 'o', value_name = "OPTIONS", num_args = 1..)]
    options: Vec<String>,

    /// Accepted, without effect: this program calls nobody
    #[arg(short = 'c', long = "update-check", value_name = "true|false")]
    _update_check: Option<bool>,
}

/// The words of a helper of mount(8).
#[derive(Debug, Parser)]
#[command(name = "mount.fuse.alluxio-fuse", version, about = "Mounts, as mount(8) wants it from a helper")]
pub(super) struct Helper {
    /// What to show: a path of Alluxio, or file:///dir
    #[arg(value_name = "SOURCE")]
    source: String,

    /// Where
    #[arg(value_name = "MOUNT_POINT")]
    point: String,

    /// Mount options and properties, comma separated
    #[arg(short = 'o', value_name = "OPTIONS")]
    options: Vec<String>,

    /// Do everything but mount
    #[arg(short = 'f')]
    pub(super) fake: bool,

    /// Accepted, without effect
    #[arg(short = 's')]
    _sloppy: bool,

    /// Accepted, without effect
    #[arg(short = 'n')]
    _no_mtab: bool,

    /// Accepted, without effect
    #[arg(short = 'v')]
    _verbose: bool,

    /// Accepted, without effect
    #[arg(short = 'N', value_name = "NAMESPACE")]
    _namespace: Option<String>,

    /// The type, which is known
    #[arg(short = 't', value_name = "TYPE")]
    _fs_type: Option<String>,
}

/// The other command line that `words` are, if they are one.
pub(super) fn recognize(words: &[OsString]) -> Option<Result<Wrapper, clap::Error>> {
    let program = words.first().and_then(|word| Path::new(word).file_name()).and_then(OsStr::to_str)?;
    if HELPERS.contains(&program) {
        return Some(Helper::try_parse_from(words).map(Wrapper::Helper));
    }
    let first = words.get(1)?.to_str()?;
    // So libfuse's own mount.fuse calls the program of a type: with the source first.
    if first.starts_with('/') || first.starts_with("file:") {
        return Some(Helper::try_parse_from(words).map(Wrapper::Helper));
    }
    let own = ["-h", "--help", "-V", "--version"].contains(&first) || !first.starts_with('-');
    (!own).then(|| Direct::try_parse_from(words).map(Wrapper::Direct))
}

impl Direct {
    /// The same for `mount`. An address of an under store other than this machine is an error.
    pub(super) fn into_mount(self) -> Result<MountArgs, String> {
        let path = match self.ufs {
            None => self.path,
            Some(dir) if dir.starts_with('/') => Some(format!("file://{dir}")),
            Some(url) if url.starts_with("file:") => Some(url),
            Some(url) => {
                return Err(format!(
                    "cannot mount {url} without a cluster: mount it in Alluxio by `alluxio fs mount`, and that path here"
                ));
            }
        };
        Ok(MountArgs {
            foreground: true,
            make_point: true,
            options: self.options,
            point: self.point,
            path,
            ..Arguments::mount()
        })
    }
}

impl Helper {
    /// The same for `mount`, without the words that are not for the mount.
    pub(super) fn into_mount(self) -> MountArgs {
        let own = self.options.iter().map(|list| without(list, is_for_fstab)).collect();
        let options = without_unasked(own).into_iter().filter(|list| !list.is_empty()).collect();
        let (point, path) = (Some(self.point), Some(self.source.clone()));
        // By its source mount(8) finds what is mounted already.
        let fs_name = Some(self.source);
        MountArgs { keep_previous: true, fs_name, options, point, path, ..Arguments::mount() }
    }
}

fn is_for_fstab(word: &str) -> bool {
    FSTAB_WORDS.contains(&word) || ["x-", "X-", "comment="].iter().any(|start| word.starts_with(start))
}

/// Words that nobody asked for must not take the place of the mount options that are set elsewhere.
fn without_unasked(lists: Vec<String>) -> Vec<String> {
    let asked: Vec<String> = lists.iter().map(|list| without(list, |word| UNASKED.contains(&word))).collect();
    let replace = |(name, _): &(String, String)| name == keys::FUSE_MOUNT_OPTIONS.name;
    match command_line_properties(&asked) {
        Ok(properties) if !properties.iter().any(replace) => asked,
        _ => lists,
    }
}

/// The list without the words that `goes` names.
fn without(list: &str, goes: impl Fn(&str) -> bool) -> String {
    list.split(',').filter(|word| !goes(word)).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn mount(words: &[&str]) -> MountArgs {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        match recognize(&words).unwrap().unwrap() {
            Wrapper::Direct(direct) => direct.into_mount().unwrap(),
            Wrapper::Helper(helper) => helper.into_mount(),
        }
    }

    #[test]
    fn the_grammars_are_sound() {
        Direct::command().debug_assert();
        Helper::command().debug_assert();
    }

    #[test]
    fn the_flags_of_the_java_process_mean_a_mount_in_the_foreground() {
        let args =
            mount(&["alluxio-fuse", "-m", "/mnt/a b", "-a", "/people", "-o", "allow_other,ro", "-o", "k=v"]);
        assert!(args.foreground);
        assert_eq!((args.point.as_deref(), args.path.as_deref()), (Some("/mnt/a b"), Some("/people")));
        assert_eq!(args.options, ["allow_other,ro", "k=v"]);
        let args = mount(&["alluxio-fuse", "--mount-point", "/m", "-u", "/data", "-c", "false"]);
        assert_eq!(args.path.as_deref(), Some("file:///data"));
    }

    #[test]
    fn an_under_store_elsewhere_is_refused_with_the_cure() {
        let words: Vec<OsString> = ["alluxio-fuse", "-m", "/m", "-u", "s3://b/"].map(OsString::from).into();
        let Some(Ok(Wrapper::Direct(direct))) = recognize(&words) else { panic!("not recognized") };
        assert!(direct.into_mount().unwrap_err().contains("alluxio fs mount"));
    }

    #[test]
    fn a_helper_of_mount_leaves_out_what_is_for_mount_alone() {
        let options =
            "rw,_netdev,nofail,x-systemd.automount,allow_other,alluxio.user.file.writetype.default=THROUGH";
        let args =
            mount(&["/sbin/mount.fuse.alluxio-fuse", "/people", "/mnt", "-n", "-o", options, "-t", "fuse.x"]);
        assert!(!args.foreground);
        assert_eq!(args.options, ["rw,allow_other,alluxio.user.file.writetype.default=THROUGH"]);
        assert_eq!((args.point.as_deref(), args.path.as_deref()), (Some("/mnt"), Some("/people")));
        assert_eq!(mount(&["alluxio-fuse", "/people", "/mnt", "-o", "rw"]).path.as_deref(), Some("/people"));
        assert!(mount(&["mount.alluxio-fuse", "/", "/m", "-o", "defaults,_netdev"]).options.is_empty());
    }

    #[test]
    fn what_mount_adds_by_itself_leaves_the_configured_options_in_force() {
        let options = |list| mount(&["mount.alluxio-fuse", "/", "/m", "-o", list]).options;
        assert!(options("rw,noauto,dev,suid").is_empty());
        assert_eq!(options("rw,alluxio.a=b,data_cache=/c,dev,suid"), ["alluxio.a=b,data_cache=/c"]);
        assert_eq!(options("rw,allow_other,dev"), ["rw,allow_other,dev"], "they replace all");
        assert_eq!(options("ro,dev,suid"), ["ro,dev,suid"]);
    }

    #[test]
    fn a_helper_of_mount_keeps_what_is_mounted_and_shows_the_source() {
        let args = mount(&["mount.alluxio-fuse", "/people", "/m"]);
        assert!(args.keep_previous);
        assert_eq!(args.fs_name.as_deref(), Some("/people"));
        assert!(!mount(&["alluxio-fuse", "-m", "/m"]).keep_previous);
    }

    #[test]
    fn the_own_command_line_is_left_alone() {
        for words in [&["alluxio-fuse"][..], &["alluxio-fuse", "mount", "-n"], &["alluxio-fuse", "--help"]] {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            assert!(recognize(&words).is_none(), "{words:?}");
        }
    }
}
