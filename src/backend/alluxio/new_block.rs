//! The only way to a new block id.
//!
//! The master's call for a new block goes by path, appends to the file's blocks each time it is made, also on a
//! repeat or for a complete file, and takes the master down if the path is a directory. So it is made only for what
//! `create_file` returned, after a look at the path if some time has passed, and after an answer that
//! was lost the file's blocks are compared instead of asking again.

use super::error::Class;
use super::incomplete::IncompleteFile;
use super::master::Master;
use super::retry::Backoff;
use crate::fs::Result;

impl Master {
    /// A new block at the end of `file`.
    pub(super) async fn new_block(&self, file: &mut IncompleteFile) -> Result<i64> {
        let mut backoff = Backoff::new(self.retry_times());
        loop {
            if let Some(id) = self.look_again(file).await? {
                return Ok(id);
            }
            file.asking();
            let failure = match self.ask_block_id(file.path()).await {
                Ok(id) => {
                    file.received(id)?;
                    return Ok(id);
                }
                Err(failure) => failure,
            };
            // Whatever went wrong, the file may have got its block: the next round looks.
            let again = match failure.class {
                Class::Connection | Class::Unauthenticated => backoff.wait().await,
                Class::Raced | Class::Unregistered | Class::Final => false,
            };
            if !again {
                return Err(failure.error);
            }
        }
    }

    /// Makes sure that the path of `file` still stands for it, if that is not certain. Returns the block that was asked for and
    /// not received, if there is one. Fails with [`Fault::Stale`] if the path stands for something else.
    ///
    /// [`Fault::Stale`]: crate::fs::Fault::Stale
    pub(super) async fn look_again(&self, file: &mut IncompleteFile) -> Result<Option<i64>> {
        if !file.is_uncertain() {
            return Ok(None);
        }
        let info = self.known_status(file.path()).await?;
        file.reconcile(&info)
    }
}
