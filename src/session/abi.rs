//! The kernel's structures of which we read or write bytes ourselves, from `linux/fuse.h` (FUSE 7.12 to
//! 7.45: sizes and places of these have not changed since, new meanings were put into padding). libfuse
//! decodes requests; replies are encoded here, as libfuse's own reply functions know neither all flags nor
//! agree between versions.

use std::time::Duration;

use crate::fs;
use crate::fs::FileKind;
use crate::fs::StatFs;
use crate::fs::Timestamp;
use crate::vfs::Entry;
use crate::vfs::Opened;

/// A structure that is only numbers, without gaps between them.
///
/// # Safety
/// `repr(C)`, no padding, and every pattern of bits is a value.
pub(super) unsafe trait Plain: Copy {
    fn as_bytes(&self) -> &[u8] {
        // SAFETY: the bytes of `self`, all of them initialized as there is no padding.
        unsafe { std::slice::from_raw_parts((&raw const *self).cast(), size_of::<Self>()) }
    }

    /// The structure at the start of `bytes`, or none if they are too few.
    fn read_from(bytes: &[u8]) -> Option<Self> {
        // SAFETY: enough bytes are there, any bits will do, and the read needs no alignment.
        (bytes.len() >= size_of::<Self>()).then(|| unsafe { bytes.as_ptr().cast::<Self>().read_unaligned() })
    }
}

macro_rules! plain {
    ($($(#[$doc:meta])* struct $name:ident: $size:literal { $($field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default)]
        pub(super) struct $name {
            $(pub(super) $field: $type,)*
        }

        const _: () = assert!(size_of::<$name>() == $size);
        // No gaps: the sizes of the fields add up.
        const _: () = assert!($size == 0 $(+ size_of::<$type>())*);

        // SAFETY: `repr(C)` over numbers and arrays or structures of them, without padding as asserted above.
        unsafe impl Plain for $name {}
    )*};
}

plain! {
    /// `fuse_in_header`, in front of each request.
    struct InHeader: 40 {
        len: u32,
        opcode: u32,
        unique: u64,
        nodeid: u64,
        uid: u32,
        gid: u32,
        pid: u32,
        total_extlen: u16,
        padding: u16,
    }

    /// `fuse_out_header`, in front of each reply; `error` is 0 or a negative errno.
    struct OutHeader: 16 {
        len: u32,
        error: i32,
        unique: u64,
    }

    /// `fuse_init_in` as of 7.36; older kernels end it after `flags`.
    struct InitIn: 64 {
        major: u32,
        minor: u32,
        max_readahead: u32,
        flags: u32,
        flags2: u32,
        unused: [u32; 11],
    }

    /// `fuse_init_out` as of 7.40.
    struct InitOut: 64 {
        major: u32,
        minor: u32,
        max_readahead: u32,
        flags: u32,
        max_background: u16,
        congestion_threshold: u16,
        max_write: u32,
        time_gran: u32,
        max_pages: u16,
        map_alignment: u16,
        flags2: u32,
        max_stack_depth: u32,
        unused: [u32; 6],
    }

    /// `fuse_read_in`.
    struct ReadIn: 40 {
        fh: u64,
        offset: u64,
        size: u32,
        read_flags: u32,
        lock_owner: u64,
        flags: u32,
        padding: u32,
    }

    /// `fuse_rename_in`; two names follow.
    struct RenameIn: 8 {
        newdir: u64,
    }

    /// `fuse_rename2_in`; two names follow.
    struct Rename2In: 16 {
        newdir: u64,
        flags: u32,
        padding: u32,
    }

    /// `fuse_attr`.
    struct FileAttr: 88 {
        ino: u64,
        size: u64,
        blocks: u64,
        atime: u64,
        mtime: u64,
        ctime: u64,
        atimensec: u32,
        mtimensec: u32,
        ctimensec: u32,
        mode: u32,
        nlink: u32,
        uid: u32,
        gid: u32,
        rdev: u32,
        blksize: u32,
        flags: u32,
    }

    /// `fuse_entry_out`: an inode that the kernel is to count once more; `nodeid` 0 is an absent name.
    struct EntryOut: 128 {
        nodeid: u64,
        generation: u64,
        entry_valid: u64,
        attr_valid: u64,
        entry_valid_nsec: u32,
        attr_valid_nsec: u32,
        attr: FileAttr,
    }

    /// `fuse_attr_out`.
    struct AttrOut: 104 {
        attr_valid: u64,
        attr_valid_nsec: u32,
        dummy: u32,
        attr: FileAttr,
    }

    /// `fuse_open_out`.
    struct OpenOut: 16 {
        fh: u64,
        open_flags: u32,
        backing_id: i32,
    }

    /// The reply to CREATE: `fuse_entry_out`, then `fuse_open_out`.
    struct CreateOut: 144 {
        entry: EntryOut,
        open: OpenOut,
    }

    /// `fuse_write_out`.
    struct WriteOut: 8 {
        size: u32,
        padding: u32,
    }

    /// `fuse_notify_inval_inode_out`.
    struct InvalInodeOut: 24 {
        ino: u64,
        off: i64,
        len: i64,
    }

    /// `fuse_backing_map`, an argument of ioctl(2): a file that the kernel is to read by itself.
    struct BackingMap: 16 {
        fd: i32,
        flags: u32,
        padding: u64,
    }

    /// `fuse_getxattr_out`: the length of an extended attribute, or of the names of all.
    struct XattrOut: 8 {
        size: u32,
        padding: u32,
    }

    /// `fuse_statfs_out`, which is a `fuse_kstatfs`.
    struct StatfsOut: 80 {
        blocks: u64,
        bfree: u64,
        bavail: u64,
        files: u64,
        ffree: u64,
        bsize: u32,
        namelen: u32,
        frsize: u32,
        padding: u32,
        spare: [u32; 6],
    }

    /// `fuse_dirent` without the name, which follows.
    struct DirentHeader: 24 {
        ino: u64,
        off: u64,
        namelen: u32,
        kind: u32,
    }
}

/// `fuse_uring_req_header`: what lies beside the data of a request or reply over io_uring.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct UringHeader {
    /// `InHeader` of a request, `OutHeader` of a reply.
    pub(super) in_out: [u8; 128],
    /// What the operation has in front of names and data.
    pub(super) op_in: [u8; 128],
    pub(super) flags: u64,
    pub(super) commit_id: u64,
    /// Bytes of data.
    pub(super) payload_sz: u32,
    pub(super) padding: u32,
    pub(super) reserved: u64,
}

const _: () = assert!(size_of::<UringHeader>() == 288);

/// Opcodes that the loop itself must tell apart, and the one that is made up.
pub(super) mod opcode {
    pub(in crate::session) const FORGET: u32 = 2;
    pub(in crate::session) const RENAME: u32 = 12;
    pub(in crate::session) const READ: u32 = 15;
    pub(in crate::session) const INIT: u32 = 26;
    pub(in crate::session) const READDIR: u32 = 28;
    pub(in crate::session) const BATCH_FORGET: u32 = 42;
    pub(in crate::session) const READDIRPLUS: u32 = 44;
    pub(in crate::session) const RENAME2: u32 = 45;
}

/// `fuse_write_in`: what lies between the header and the data of a WRITE.
pub(super) const WRITE_IN_LEN: usize = 40;

const FOPEN_DIRECT_IO: u32 = 1 << 0;
const FOPEN_KEEP_CACHE: u32 = 1 << 1;
const FOPEN_NOFLUSH: u32 = 1 << 5;
const FOPEN_PASSTHROUGH: u32 = 1 << 7;

const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;

/// The type bits of `st_mode`.
pub(super) fn type_bits(kind: FileKind) -> u32 {
    match kind {
        FileKind::Directory => S_IFDIR,
        FileKind::Regular => S_IFREG,
    }
}

impl From<&fs::Attr> for FileAttr {
    fn from(attr: &fs::Attr) -> Self {
        // Seconds before 1970 travel as their two's complement.
        let secs = |time: Timestamp| time.secs.cast_unsigned();
        Self {
            ino: attr.id,
            size: attr.size,
            // In the unit of stat(2), whatever the block size of the store.
            blocks: attr.size.div_ceil(512),
            atime: secs(attr.atime),
            mtime: secs(attr.mtime),
            ctime: secs(attr.ctime),
            atimensec: attr.atime.nanos,
            mtimensec: attr.mtime.nanos,
            ctimensec: attr.ctime.nanos,
            mode: type_bits(attr.kind) | (attr.mode & 0o7777),
            nlink: attr.nlink,
            uid: attr.uid,
            gid: attr.gid,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl From<&Entry> for EntryOut {
    fn from(entry: &Entry) -> Self {
        Self {
            nodeid: entry.ino.0,
            generation: entry.generation,
            entry_valid: entry.entry_ttl.as_secs(),
            attr_valid: entry.attr_ttl.as_secs(),
            entry_valid_nsec: entry.entry_ttl.subsec_nanos(),
            attr_valid_nsec: entry.attr_ttl.subsec_nanos(),
            attr: (&entry.attr).into(),
        }
    }
}

impl EntryOut {
    /// That a name is absent, and for how long the kernel may believe so.
    pub(super) fn absent(ttl: Duration) -> Self {
        Self { entry_valid: ttl.as_secs(), entry_valid_nsec: ttl.subsec_nanos(), ..Self::default() }
    }
}

impl AttrOut {
    pub(super) fn new(attr: &fs::Attr, ttl: Duration) -> Self {
        Self { attr_valid: ttl.as_secs(), attr_valid_nsec: ttl.subsec_nanos(), dummy: 0, attr: attr.into() }
    }
}

impl From<&Opened> for OpenOut {
    fn from(opened: &Opened) -> Self {
        let flag = |set: bool, bit: u32| if set { bit } else { 0 };
        let no_flush = flag(opened.no_flush, FOPEN_NOFLUSH);
        let (mode, backing_id) = match opened.backing {
            // It excludes the kernel's own pages. With `direct_io` beside it reads would come here all the same.
            Some(id) => (FOPEN_PASSTHROUGH, id.0),
            None => (flag(opened.direct_io, FOPEN_DIRECT_IO) | flag(opened.keep_cache, FOPEN_KEEP_CACHE), 0),
        };
        Self { fh: opened.fh.0, open_flags: mode | no_flush, backing_id }
    }
}

impl From<&StatFs> for StatfsOut {
    fn from(stat: &StatFs) -> Self {
        Self {
            blocks: stat.blocks,
            bfree: stat.blocks_free,
            bavail: stat.blocks_free,
            bsize: stat.block_size,
            frsize: stat.block_size,
            namelen: stat.name_max,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::BackingId;
    use crate::vfs::Fh;

    fn attr() -> fs::Attr {
        fs::Attr {
            id: 77,
            kind: FileKind::Regular,
            size: 513,
            mode: 0o4755,
            nlink: 1,
            uid: 3,
            gid: 4,
            atime: Timestamp { secs: -1, nanos: 5 },
            mtime: Timestamp { secs: 10, nanos: 6 },
            ctime: Timestamp { secs: 20, nanos: 7 },
            complete: true,
        }
    }

    #[test]
    fn attributes_are_shown_as_stat_counts_them() {
        let out = FileAttr::from(&attr());
        assert_eq!((out.ino, out.size, out.blocks, out.blksize), (77, 513, 2, 4096));
        assert_eq!(out.mode, 0o104_755);
        assert_eq!((out.atime, out.atimensec), (u64::MAX, 5));
    }

    #[test]
    fn bytes_are_where_the_kernel_looks_for_them() {
        let bytes = AttrOut::new(&attr(), Duration::from_millis(1500));
        let bytes = bytes.as_bytes();
        assert_eq!(bytes.len(), 104);
        assert_eq!(bytes[0..8], 1u64.to_ne_bytes());
        assert_eq!(bytes[8..12], 500_000_000u32.to_ne_bytes());
        assert_eq!(bytes[16..24], 77u64.to_ne_bytes());
        assert_eq!(bytes[16 + 60..16 + 64], 0o104_755u32.to_ne_bytes());
    }

    #[test]
    fn a_file_that_the_kernel_reads_by_itself_is_opened_in_no_other_way() {
        let plain = Opened { fh: Fh(5), direct_io: true, keep_cache: true, no_flush: false, backing: None };
        let out = OpenOut::from(&plain);
        assert_eq!((out.fh, out.open_flags, out.backing_id), (5, FOPEN_DIRECT_IO | FOPEN_KEEP_CACHE, 0));
        let out = OpenOut::from(&Opened { no_flush: true, backing: Some(BackingId(3)), ..plain });
        assert_eq!((out.open_flags, out.backing_id), (FOPEN_PASSTHROUGH | FOPEN_NOFLUSH, 3));
    }

    #[test]
    fn a_structure_is_not_read_from_too_few_bytes() {
        assert!(OutHeader::read_from(&[0; 15]).is_none());
        let mut bytes = [0u8; 17];
        bytes[1..5].copy_from_slice(&16u32.to_ne_bytes());
        assert_eq!(OutHeader::read_from(&bytes[1..]).unwrap().len, 16);
    }
}
