//! Bytes that look random and are known: every piece of a file can be made, and checked, without the rest.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

const PIECE: usize = 1 << 20;

/// Numbers that look random and are the same for the same seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// A number below `bound`, which is not zero.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(self.0) % bound
    }
}

/// The bytes from `offset` on of the endless content of `seed`.
pub(crate) fn fill(seed: u64, offset: u64, buf: &mut [u8]) {
    let start = mix(seed);
    let mut index = offset / 8;
    let head = (offset % 8) as usize;
    let mut rest = buf;
    if head > 0 {
        let word = mix(start.wrapping_add(index)).to_le_bytes();
        let n = rest.len().min(8 - head);
        let (first, after) = rest.split_at_mut(n);
        first.copy_from_slice(&word[head..head + n]);
        rest = after;
        index += 1;
    }
    let mut words = rest.chunks_exact_mut(8);
    for piece in &mut words {
        piece.copy_from_slice(&mix(start.wrapping_add(index)).to_le_bytes());
        index += 1;
    }
    let last = words.into_remainder();
    let word = mix(start.wrapping_add(index)).to_le_bytes();
    let n = last.len();
    last.copy_from_slice(&word[..n]);
}

/// Writes a new file of `size` bytes of the content of `seed`, closed when this returns.
pub(crate) fn write_file(path: &Path, seed: u64, size: u64) -> std::io::Result<()> {
    write_to(File::create_new(path)?, seed, size)
}

/// The same over a file that is there.
pub(crate) fn overwrite_file(path: &Path, seed: u64, size: u64) -> std::io::Result<()> {
    write_to(File::options().write(true).truncate(true).open(path)?, seed, size)
}

fn write_to(mut file: File, seed: u64, size: u64) -> std::io::Result<()> {
    use std::io::Write;
    let mut buf = vec![0; PIECE];
    let mut offset = 0;
    while offset < size {
        let n = PIECE.min((size - offset) as usize);
        fill(seed, offset, &mut buf[..n]);
        file.write_all(&buf[..n])?;
        offset += n as u64;
    }
    // std ignores what close(2) says, and that is where a file system may say that nothing was kept.
    nix::unistd::close(file)?;
    Ok(())
}

/// Reads the file to its end and says where it differs from `size` bytes of the content of `seed`.
pub(crate) fn check_file(path: &Path, seed: u64, size: u64) -> Result<(), String> {
    let say = |what: String| format!("{}: {what}", path.display());
    let mut file = File::open(path).map_err(|e| say(format!("open: {e}")))?;
    let mut got = vec![0; PIECE];
    let mut offset = 0;
    loop {
        let n = file.read(&mut got).map_err(|e| say(format!("read at {offset}: {e}")))?;
        if n == 0 {
            break;
        }
        check_bytes(&got[..n], seed, offset).map_err(say)?;
        offset += n as u64;
    }
    if offset == size { Ok(()) } else { Err(say(format!("{offset} bytes, expected {size}"))) }
}

/// Reads `len` bytes at `offset` and says where they differ from the content of `seed`.
pub(crate) fn check_range(file: &File, seed: u64, offset: u64, len: usize) -> Result<(), String> {
    let mut got = vec![0; len];
    file.read_exact_at(&mut got, offset).map_err(|e| format!("read of {len} at {offset}: {e}"))?;
    check_bytes(&got, seed, offset)
}

fn check_bytes(got: &[u8], seed: u64, offset: u64) -> Result<(), String> {
    let mut expected = vec![0; got.len()];
    fill(seed, offset, &mut expected);
    match got.iter().zip(&expected).position(|(a, b)| a != b) {
        None => Ok(()),
        Some(at) => Err(format!("differs from byte {} on", offset + at as u64)),
    }
}

/// The finalizer of SplitMix64: every bit of the input changes half of the output.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[test]
fn a_piece_of_content_is_the_same_however_it_is_asked_for() {
    let mut whole = [0; 100];
    fill(7, 0, &mut whole);
    for start in 0..40 {
        for len in 0..30 {
            let mut piece = vec![0; len];
            fill(7, start as u64, &mut piece);
            assert_eq!(piece, &whole[start..start + len], "{len} at {start}");
        }
    }
    let mut other = [0; 100];
    fill(8, 0, &mut other);
    assert_ne!(whole, other);
}
