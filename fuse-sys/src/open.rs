//! Finds libfuse, checks that it is one we can work with, and says what to install if it is not.
//!
//! A library stays loaded until the program ends: it keeps thread-local state whose destructors run when
//! threads end, so it could not be unloaded safely.

use std::error::Error;
use std::ffi::CStr;
use std::ffi::OsStr;
use std::ffi::c_void;
use std::fmt;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::OnceLock;

use crate::fuse2::Fuse2;
use crate::fuse3::Fuse3;

/// Which libfuse is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// libfuse 2 or nothing.
    Only2,
    /// libfuse 3 or nothing.
    Only3,
    /// libfuse 2 if it can be had, else libfuse 3.
    TwoThenThree,
}

/// An opened libfuse. Cheap to copy: it lives as long as the program.
#[derive(Clone, Copy)]
pub enum Library {
    /// libfuse 2.
    V2(&'static Opened<Fuse2>),
    /// libfuse 3.
    V3(&'static Opened<Fuse3>),
}

/// The functions of a library and where they come from.
pub struct Opened<Functions> {
    /// What it exports, as function pointers. Those that [`open`] did not ask for may be missing.
    pub functions: Functions,
    /// The release.
    pub version: Version,
    /// The file it was loaded from, with symbolic links followed.
    pub file: PathBuf,
}

/// A release of libfuse. The last number is unknown where the library does not tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// 2 or 3.
    pub major: u32,
    /// Such as 9 in 2.9.3.
    pub minor: u32,
    /// Such as 3 in 2.9.3.
    pub patch: Option<u32>,
}

/// Why there is no library to work with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// No file of that name, or one that the loader refuses.
    Missing {
        /// 2 or 3.
        major: u32,
        /// What the loader says.
        reason: String,
    },
    /// Older than what was ever tried.
    TooOld {
        /// What was found.
        found: Version,
        /// Where.
        file: PathBuf,
    },
    /// It lacks a function that its version should have.
    NoSymbol {
        /// The function.
        symbol: &'static str,
        /// What was found.
        found: Version,
        /// Where.
        file: PathBuf,
    },
    /// Neither version can be used, for these two reasons.
    Neither(Box<[OpenError; 2]>),
}

/// The oldest releases that users have.
const OLDEST: [Version; 2] =
    [Version { major: 2, minor: 9, patch: Some(3) }, Version { major: 3, minor: 2, patch: Some(6) }];

/// Opens the library that `choice` asks for.
pub fn open(choice: Choice) -> Result<Library, OpenError> {
    match choice {
        Choice::Only2 => open_2().map(Library::V2),
        Choice::Only3 => open_3().map(Library::V3),
        Choice::TwoThenThree => open_2().map(Library::V2).or_else(|without_2| {
            open_3()
                .map(Library::V3)
                .map_err(|without_3| OpenError::Neither(Box::new([without_2, without_3])))
        }),
    }
}

impl Library {
    /// The release.
    pub fn version(&self) -> Version {
        match self {
            Self::V2(opened) => opened.version,
            Self::V3(opened) => opened.version,
        }
    }

    /// The file it was loaded from.
    pub fn file(&self) -> &Path {
        match self {
            Self::V2(opened) => &opened.file,
            Self::V3(opened) => &opened.file,
        }
    }
}

/// Checks function pointers that must be there, in the order of the names.
macro_rules! require {
    ($functions:expr, $found:expr, $file:expr; $($symbol:ident)*) => {
        $(if $functions.$symbol.is_err() {
            return Err(OpenError::NoSymbol { symbol: stringify!($symbol), found: $found, file: $file.to_owned() });
        })*
    };
}

fn open_2() -> Result<&'static Opened<Fuse2>, OpenError> {
    static OPENED: OnceLock<Result<Opened<Fuse2>, OpenError>> = OnceLock::new();
    OPENED.get_or_init(|| load_2(&["libfuse.so.2"])).as_ref().map_err(Clone::clone)
}

fn open_3() -> Result<&'static Opened<Fuse3>, OpenError> {
    static OPENED: OnceLock<Result<Opened<Fuse3>, OpenError>> = OnceLock::new();
    OPENED.get_or_init(|| load_3(&["libfuse3.so.4", "libfuse3.so.3"])).as_ref().map_err(Clone::clone)
}

fn load_2(names: &[&str]) -> Result<Opened<Fuse2>, OpenError> {
    let library = load(2, names)?;
    // SAFETY: a library of this name has libfuse's C interface; only symbols of one fixed shape are bound.
    let functions = unsafe { Fuse2::from_library(library) }.map_err(|err| missing(2, &err.to_string()))?;
    let Ok(fuse_version) = functions.fuse_version else {
        return Err(missing(2, "it does not say its version"));
    };
    let file = file_of(fuse_version as *const c_void);
    // SAFETY: takes nothing and returns a constant. 29 stands for 2.9; the third number is only in the file's name.
    let number = u32::try_from(unsafe { fuse_version() }).unwrap_or(0);
    let patch = version_of_file_name(&file).and_then(|named| named.patch);
    let version = Version { major: number / 10, minor: number % 10, patch };
    check_age(version, &file)?;
    require!(functions, version, file;
        fuse_mount fuse_unmount fuse_lowlevel_new fuse_reply_err fuse_reply_none fuse_reply_buf fuse_reply_iov
        fuse_req_ctx fuse_req_userdata fuse_req_interrupt_func fuse_opt_free_args fuse_session_add_chan
        fuse_session_remove_chan fuse_session_process_buf fuse_session_exit fuse_session_destroy
        fuse_chan_new fuse_chan_fd fuse_chan_destroy);
    Ok(Opened { functions, version, file })
}

fn load_3(names: &[&str]) -> Result<Opened<Fuse3>, OpenError> {
    let library = load(3, names)?;
    // SAFETY: as for libfuse 2.
    let functions = unsafe { Fuse3::from_library(library) }.map_err(|err| missing(3, &err.to_string()))?;
    let Ok(fuse_pkgversion) = functions.fuse_pkgversion else {
        return Err(missing(3, "it does not say its version"));
    };
    let file = file_of(fuse_pkgversion as *const c_void);
    // SAFETY: takes nothing and returns a constant string.
    let text = unsafe { CStr::from_ptr(fuse_pkgversion()) }.to_string_lossy();
    let version =
        Version::parse(&text).ok_or_else(|| missing(3, &format!("it calls its version {text:?}")))?;
    check_age(version, &file)?;
    require!(functions, version, file;
        fuse_session_new fuse_session_mount fuse_session_unmount fuse_session_fd fuse_session_process_buf
        fuse_session_exit fuse_session_destroy fuse_reply_err fuse_reply_none fuse_reply_buf fuse_reply_iov
        fuse_req_ctx fuse_req_userdata fuse_req_interrupt_func fuse_opt_free_args);
    Ok(Opened { functions, version, file })
}

/// The first of `names` that the loader takes.
fn load(major: u32, names: &[&str]) -> Result<libloading::Library, OpenError> {
    let mut reasons = Vec::new();
    for name in names {
        // SAFETY: libfuse's constructors touch nothing but its own state.
        match unsafe { libloading::Library::new(*name) } {
            Ok(library) => return Ok(library),
            Err(err) => reasons.push(cause(&err)),
        }
    }
    Err(missing(major, &reasons.join("; ")))
}

/// libloading says only that it failed; what the loader said is below that.
fn cause(err: &dyn Error) -> String {
    err.source().map_or_else(|| err.to_string(), ToString::to_string)
}

fn missing(major: u32, reason: &str) -> OpenError {
    OpenError::Missing { major, reason: reason.to_owned() }
}

fn check_age(found: Version, file: &Path) -> Result<(), OpenError> {
    let old_enough = OLDEST.iter().any(|oldest| found.major == oldest.major && found.not_before(*oldest));
    if old_enough { Ok(()) } else { Err(OpenError::TooOld { found, file: file.to_owned() }) }
}

/// The file that a function was loaded from; empty if the loader does not know.
fn file_of(function: *const c_void) -> PathBuf {
    let mut info = MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: dladdr only compares the address with the loaded objects and fills `info`, whose strings live as
    // long as the object, which is never unloaded.
    let name = unsafe {
        if libc::dladdr(function, info.as_mut_ptr()) == 0 || info.assume_init_ref().dli_fname.is_null() {
            return PathBuf::new();
        }
        CStr::from_ptr(info.assume_init_ref().dli_fname)
    };
    let path = PathBuf::from(OsStr::from_bytes(name.to_bytes()));
    path.canonicalize().unwrap_or(path)
}

/// `libfuse.so.2.9.9` is release 2.9.9.
fn version_of_file_name(file: &Path) -> Option<Version> {
    let (_, version) = file.file_name()?.to_str()?.split_once(".so.")?;
    Version::parse(version)
}

impl Version {
    /// From text such as `3.14.0` or `3.17.1-rc0`.
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('.').map(|part| {
            let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part[..digits].parse::<u32>().ok()
        });
        let (major, minor) = (numbers.next()??, numbers.next()??);
        Some(Self { major, minor, patch: numbers.next().flatten() })
    }

    /// Whether this release is `other` or a later one; an unknown last number is taken as late enough.
    pub fn not_before(self, other: Self) -> bool {
        let late = |version: Self| version.patch.unwrap_or(u32::MAX);
        (self.major, self.minor, late(self)) >= (other.major, other.minor, other.patch.unwrap_or(0))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.major, self.minor)?;
        self.patch.map_or(Ok(()), |patch| write!(out, ".{patch}"))
    }
}

/// The packages of a major version.
fn cure(major: u32) -> &'static str {
    match major {
        2 => "`apt-get install libfuse2` or `yum install fuse-libs fuse`",
        _ => "`apt-get install fuse3` or `yum install fuse3-libs fuse3`",
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { major, reason } => {
                write!(out, "libfuse {major} cannot be loaded, try {} ({reason})", cure(*major))
            }
            Self::TooOld { found, file } => {
                let oldest = OLDEST[usize::from(found.major >= 3)];
                let file = file.display();
                write!(
                    out,
                    "{file} is libfuse {found}, at least {oldest} is needed, try {}",
                    cure(found.major)
                )
            }
            Self::NoSymbol { symbol, found, file } => {
                let file = file.display();
                write!(out, "{file} (libfuse {found}) lacks {symbol}, try {}", cure(found.major))
            }
            Self::Neither(reasons) => write!(out, "{}; {}", reasons[0], reasons[1]),
        }
    }
}

impl Error for OpenError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    #[test]
    fn versions_are_read_from_text_and_file_names() {
        assert_eq!(version("3.14.0"), Version { major: 3, minor: 14, patch: Some(0) });
        assert_eq!(version("3.17.1-rc0").to_string(), "3.17.1");
        assert_eq!(version("2.9").patch, None);
        assert_eq!(Version::parse("next"), None);
        assert_eq!(version_of_file_name(Path::new("/lib/libfuse.so.2.9.9")), Some(version("2.9.9")));
        assert_eq!(version_of_file_name(Path::new("/lib/libfuse.so")), None);
    }

    #[test]
    fn old_releases_are_refused_with_the_package_to_install() {
        let file = Path::new("/lib/libfuse.so.2");
        for good in ["2.9.3", "2.9.9", "2.9", "3.2.6", "3.10.0", "3.18.2"] {
            assert_eq!(check_age(version(good), file), Ok(()), "{good}");
        }
        for bad in ["2.9.2", "2.8.7", "3.2.5", "3.0.0"] {
            let text = check_age(version(bad), file).unwrap_err().to_string();
            assert!(text.contains(bad) && text.contains("apt-get install") && !text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn a_missing_library_names_both_packages_when_either_would_do() {
        let (Err(without_2), Err(without_3)) = (load_2(&["libfuse.so.none"]), load_3(&["libfuse3.so.none"]))
        else {
            panic!("there is no such library");
        };
        let text = OpenError::Neither(Box::new([without_2, without_3])).to_string();
        assert!(
            text.contains("libfuse2") && text.contains("install fuse3`") && text.contains("libfuse.so.none"),
            "{text}"
        );
    }

    #[test]
    fn what_is_not_libfuse_is_refused() {
        let text = load_3(&["libc.so.6"]).map(|_| ()).unwrap_err().to_string();
        assert!(text.contains("does not say its version"), "{text}");
    }

    #[test]
    fn either_library_opens_and_says_where_it_is() {
        // Both are installed wherever the tests run.
        for (choice, major) in [(Choice::Only2, 2), (Choice::Only3, 3), (Choice::TwoThenThree, 2)] {
            let library = open(choice).unwrap();
            assert_eq!(library.version().major, major);
            assert!(library.file().is_file(), "{:?}", library.file());
        }
    }
}
