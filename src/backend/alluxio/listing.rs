//! A directory as the master streams it.

use std::sync::Arc;

use tonic::Streaming;

use super::NAME_MAX;
use super::Shared;
use super::master::ListStream;
use super::proto::grpc::file::FileInfo;
use super::proto::grpc::file::ListStatusPResponse;
use crate::fs::Ctx;
use crate::fs::DirEntry;
use crate::fs::Fault;
use crate::fs::FsPath;
use crate::fs::Listing;
use crate::fs::Result;

/// The entries that were not asked for yet: those that have arrived, and the rest of the stream.
pub(super) struct AlluxioListing {
    shared: Arc<Shared>,
    place: FsPath,
    arrived: Vec<FileInfo>,
    /// None at its end.
    rest: Option<Streaming<ListStatusPResponse>>,
}

impl AlluxioListing {
    /// [`Fault::NotDirectory`] if `place` is a file: the master then lists the file itself.
    pub(super) fn new(shared: Arc<Shared>, place: FsPath, stream: ListStream) -> Result<Self> {
        if let [only] = &stream.first[..]
            && !only.folder()
            && only.path() == place.as_str()
        {
            return Err(Fault::NotDirectory.into());
        }
        Ok(Self { shared, place, arrived: stream.first, rest: Some(stream.rest) })
    }

    fn entries(&self, infos: Vec<FileInfo>) -> Vec<DirEntry> {
        infos
            .into_iter()
            .filter(|info| is_name(info.name()))
            .map(|info| DirEntry { attr: self.shared.attr(&info), name: info.name.unwrap_or_default() })
            .collect()
    }
}

impl Listing for AlluxioListing {
    fn next_batch(&mut self, ctx: &Ctx) -> Result<Vec<DirEntry>> {
        loop {
            let arrived = std::mem::take(&mut self.arrived);
            let entries = self.entries(arrived);
            if !entries.is_empty() {
                return Ok(entries);
            }
            let Some(rest) = &mut self.rest else {
                return Ok(Vec::new());
            };
            let (shared, place) = (&self.shared, &self.place);
            let message = shared.bridge.run(ctx, None, async {
                rest.message().await.map_err(|status| shared.master.list_failure(place, &status))
            })?;
            match message {
                Some(message) => self.arrived = message.file_infos,
                None => self.rest = None,
            }
        }
    }
}

/// Whether a kernel can show this name. Alluxio stores longer ones than that.
fn is_name(name: &str) -> bool {
    let shown = !name.is_empty() && name.len() <= NAME_MAX && !name.contains(['/', '\0']);
    if !shown {
        log::debug!("not listed, as it cannot be a name here: {name:?}");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_kernel_takes_are_left_out() {
        assert!(is_name(" a:%\n"));
        assert!(is_name(&"x".repeat(255)));
        for bad in ["", "a/b", "a\0b", &"x".repeat(256)] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }
}
