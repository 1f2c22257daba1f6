//! Requests that libfuse 2 does not decode, in the form of those that it does: READDIRPLUS as READDIR, which
//! asks with the same structure, and RENAME2 as RENAME, which has no flags. What that form leaves out waits
//! on the thread for the callback.

use std::cell::Cell;

use super::abi::InHeader;
use super::abi::Plain;
use super::abi::Rename2In;
use super::abi::RenameIn;
use super::abi::opcode;

thread_local! {
    static PLUS: Cell<bool> = const { Cell::new(false) };
    static RENAME_FLAGS: Cell<u32> = const { Cell::new(0) };
}

/// The request as libfuse 2 decodes it, in the same memory.
pub(super) fn translated(request: &mut [u8]) -> &mut [u8] {
    let header = InHeader::read_from(request).unwrap_or_default();
    PLUS.set(header.opcode == opcode::READDIRPLUS);
    RENAME_FLAGS.set(0);
    match header.opcode {
        opcode::READDIRPLUS => {
            put(request, &InHeader { opcode: opcode::READDIR, ..header });
            request
        }
        opcode::RENAME2 => without_flags(request, header),
        _ => request,
    }
}

/// Whether the READDIR that libfuse calls back with is a READDIRPLUS.
pub(super) fn is_plus() -> bool {
    PLUS.get()
}

/// The flags of the RENAME that libfuse calls back with.
pub(super) fn rename_flags() -> u32 {
    RENAME_FLAGS.get()
}

/// RENAME's structure is shorter, so it starts later: the names behind it stay where they are.
fn without_flags(request: &mut [u8], header: InHeader) -> &mut [u8] {
    let Some(arg) = Rename2In::read_from(&request[size_of::<InHeader>()..]) else { return request };
    RENAME_FLAGS.set(arg.flags);
    let shorter = size_of::<Rename2In>() - size_of::<RenameIn>();
    let request = &mut request[shorter..];
    let len = u32::try_from(request.len()).expect("shorter than it was");
    put(request, &InHeader { opcode: opcode::RENAME, len, ..header });
    put(&mut request[size_of::<InHeader>()..], &RenameIn { newdir: arg.newdir });
    request
}

fn put(at: &mut [u8], value: &impl Plain) {
    let bytes = value.as_bytes();
    at[..bytes.len()].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(opcode: u32, body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(size_of::<InHeader>() + body.len()).unwrap();
        let header = InHeader { len, opcode, unique: 7, nodeid: 1, ..InHeader::default() };
        [header.as_bytes(), body].concat()
    }

    #[test]
    fn renames_with_flags_become_renames_and_flags() {
        let arg = Rename2In { newdir: 42, flags: libc::RENAME_NOREPLACE, padding: 0 };
        let mut bytes = request(opcode::RENAME2, &[arg.as_bytes(), b"old\0new\0"].concat());
        let out = translated(&mut bytes).to_vec();
        let header = InHeader::read_from(&out).unwrap();
        assert_eq!((header.opcode, header.unique, header.nodeid), (opcode::RENAME, 7, 1));
        assert_eq!(header.len as usize, out.len());
        assert_eq!(out[40..48], 42u64.to_ne_bytes());
        assert_eq!(&out[48..], b"old\0new\0");
        assert_eq!(rename_flags(), libc::RENAME_NOREPLACE);
    }

    #[test]
    fn what_was_left_out_of_one_request_is_not_taken_for_the_next() {
        let arg = Rename2In { newdir: 1, flags: 1, padding: 0 };
        translated(&mut request(opcode::RENAME2, &[arg.as_bytes(), b"a\0b\0"].concat()));
        let mut plus = request(opcode::READDIRPLUS, &[0; 40]);
        assert_eq!(InHeader::read_from(translated(&mut plus)).unwrap().opcode, opcode::READDIR);
        assert!(is_plus());
        assert_eq!(rename_flags(), 0);
        let mut plain = request(opcode::READDIR, &[0; 40]);
        let before = plain.clone();
        assert_eq!(translated(&mut plain), before);
        assert!(!is_plus());
    }

    #[test]
    fn a_request_that_is_too_short_is_left_to_libfuse() {
        let mut short = request(opcode::RENAME2, &[0; 4]);
        let before = short.clone();
        assert_eq!(translated(&mut short), before);
        assert_eq!(translated(&mut []), &[] as &[u8]);
    }
}
