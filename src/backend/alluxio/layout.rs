//! Where the bytes of a file lie in its blocks. Pure arithmetic; knows neither workers nor block ids.

use std::ops::Range;

/// The cut of one file into blocks: all of the same size, only the last may be shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    len: u64,
    block_size: u64,
}

/// A part of one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Index of the block in the file.
    pub(super) block: usize,
    /// The bytes within the block; never empty.
    pub(super) range: Range<u64>,
}

impl Layout {
    /// A file of `len` bytes in blocks of `block_size`, which is above zero.
    pub(super) fn new(len: u64, block_size: u64) -> Self {
        assert!(block_size > 0, "a file of {len} bytes has blocks of no size");
        Self { len, block_size }
    }

    /// Bytes of the file.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Number of blocks.
    pub(super) fn blocks(&self) -> usize {
        usize::try_from(self.len.div_ceil(self.block_size)).unwrap_or(usize::MAX)
    }

    /// Where block `block` begins in the file.
    pub(super) fn block_start(&self, block: usize) -> u64 {
        block as u64 * self.block_size
    }

    /// Bytes of block `block`.
    pub(super) fn block_len(&self, block: usize) -> u64 {
        let start = self.block_start(block);
        self.block_size.min(self.len.saturating_sub(start))
    }

    /// The index of the block that holds `offset`.
    pub(super) fn block_at(&self, offset: u64) -> usize {
        usize::try_from(offset / self.block_size).unwrap_or(usize::MAX)
    }

    /// The next block border after `offset`, or the end of the file if that comes first.
    pub(super) fn border_after(&self, offset: u64) -> u64 {
        (offset / self.block_size).saturating_add(1).saturating_mul(self.block_size).min(self.len)
    }

    /// The part of `offset..offset + len` that exists; empty past the end.
    pub(super) fn clip(&self, offset: u64, len: usize) -> Range<u64> {
        let start = offset.min(self.len);
        start..start.saturating_add(len as u64).min(self.len)
    }

    /// The pieces of blocks that make up `range`, in order.
    pub(super) fn pieces(&self, range: Range<u64>) -> impl Iterator<Item = Piece> {
        let layout = *self;
        let mut offset = range.start;
        let end = range.end.min(self.len);
        std::iter::from_fn(move || {
            if offset >= end {
                return None;
            }
            let block = layout.block_at(offset);
            let start = layout.block_start(block);
            let stop = layout.border_after(offset).min(end);
            let piece = Piece { block, range: offset - start..stop - start };
            offset = stop;
            Some(piece)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(len: u64, block_size: u64, range: Range<u64>) -> Vec<(usize, Range<u64>)> {
        Layout::new(len, block_size).pieces(range).map(|piece| (piece.block, piece.range)).collect()
    }

    #[test]
    fn only_the_last_block_is_shorter() {
        let layout = Layout::new(25, 10);
        assert_eq!(layout.blocks(), 3);
        assert_eq!([0, 1, 2, 3].map(|block| layout.block_len(block)), [10, 10, 5, 0]);
        assert_eq!(Layout::new(20, 10).blocks(), 2);
        assert_eq!(Layout::new(0, 10).blocks(), 0);
    }

    #[test]
    fn a_range_is_cut_at_block_borders() {
        assert_eq!(pieces(25, 10, 8..23), [(0, 8..10), (1, 0..10), (2, 0..3)]);
        assert_eq!(pieces(25, 10, 10..20), [(1, 0..10)]);
        assert_eq!(pieces(25, 10, 3..3), []);
        assert_eq!(pieces(25, 10, 24..99), [(2, 4..5)]);
    }

    #[test]
    fn nothing_lies_past_the_end() {
        let layout = Layout::new(25, 10);
        assert_eq!(layout.clip(20, 100), 20..25);
        assert_eq!(layout.clip(25, 1), 25..25);
        assert_eq!(layout.clip(u64::MAX, usize::MAX), 25..25);
        assert_eq!(layout.clip(3, 0), 3..3);
    }

    #[test]
    fn pieces_cover_every_range_without_gap_or_overlap() {
        let layout = Layout::new(29, 7);
        for start in 0..=29 {
            for end in start..=29 {
                let mut next = start;
                for piece in layout.pieces(start..end) {
                    assert_eq!(layout.block_start(piece.block) + piece.range.start, next);
                    assert!(piece.range.end <= layout.block_len(piece.block));
                    next = layout.block_start(piece.block) + piece.range.end;
                }
                assert_eq!(next, end);
            }
        }
    }
}
