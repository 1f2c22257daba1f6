//! A directory as opendir(3) reads it, with telldir(3) and seekdir(3), which Rust's library has not.

use std::ffi::CStr;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// An open directory.
pub(crate) struct DirStream(*mut libc::DIR);

impl DirStream {
    pub(crate) fn open(path: &Path) -> DirStream {
        let text = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: a C string that lives through the call.
        let dir = unsafe { libc::opendir(text.as_ptr()) };
        assert!(!dir.is_null(), "opendir {}: {}", path.display(), std::io::Error::last_os_error());
        DirStream(dir)
    }

    /// Where the next name is.
    pub(crate) fn tell(&mut self) -> i64 {
        // SAFETY: the stream is open.
        unsafe { libc::telldir(self.0) }
    }

    /// Goes to where [`Self::tell`] was called.
    pub(crate) fn seek(&mut self, at: i64) {
        // SAFETY: the stream is open.
        unsafe { libc::seekdir(self.0, at) }
    }

    pub(crate) fn rewind(&mut self) {
        // SAFETY: the stream is open.
        unsafe { libc::rewinddir(self.0) }
    }
}

impl Iterator for DirStream {
    type Item = String;

    /// The next name but `.` and `..`; none at the end.
    fn next(&mut self) -> Option<String> {
        loop {
            nix::errno::Errno::clear();
            // SAFETY: the stream is open, and its entry is copied before the next call.
            let entry = unsafe { libc::readdir(self.0).as_ref() };
            let Some(entry) = entry else {
                let errno = nix::errno::Errno::last_raw();
                assert_eq!(errno, 0, "readdir: {}", std::io::Error::from_raw_os_error(errno));
                return None;
            };
            // SAFETY: the system ends it with a zero.
            let name = unsafe { CStr::from_ptr(entry.d_name.as_ptr()) }.to_str().unwrap();
            if name != "." && name != ".." {
                return Some(name.to_owned());
            }
        }
    }
}

impl Drop for DirStream {
    fn drop(&mut self) {
        // SAFETY: opened once, closed once.
        unsafe { libc::closedir(self.0) };
    }
}
