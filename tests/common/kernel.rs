//! The kernel that the tests run on, as some of what they try is not in older ones.
#![allow(clippy::print_stderr, reason = "who runs the tests is told what is left out")]

/// Whether this is Linux `major`.`minor` or newer. Says so if not: what needs it is left out.
pub(crate) fn is_since(major: u32, minor: u32) -> bool {
    let name = nix::sys::utsname::uname().unwrap();
    let release = name.release().to_string_lossy();
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    let version: (u32, u32) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    let since = version >= (major, minor);
    if !since {
        eprintln!("not tested, as it needs Linux {major}.{minor}, and this is {release}");
    }
    since
}
