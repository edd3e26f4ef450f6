//! PATCH on a session URL: trickle ICE and ICE restart (RFC 9725 §4.3), the same for publishers and players.

use std::time::{Duration, Instant};

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;

use crate::rtc::ice_lite::new_credentials;
use crate::rtc::sdp::{FragmentTemplate, IceFragment};
use crate::shard::{Budget, Role};

use super::directory::{IceSession, Session};
use super::node::Node;
use super::refusal::PatchRefusal;
use super::session::{IfMatch, Patched, SessionId};
use super::shard_thread::Command;

/// PATCH requests of one session: this many at once, since some clients send one for each candidate, and one more after
/// each [`REQUEST_EARNED`].
const MOST_REQUESTS: u32 = 32;
const REQUEST_EARNED: Duration = Duration::from_secs(1);

impl IceSession {
    /// That of an answer just written, to an offer with `remote_ufrag`.
    pub(super) fn new(remote_ufrag: &str, answer: &str, tag: [u8; 8]) -> Self {
        Self {
            etag: etag(tag),
            remote_ufrag: remote_ufrag.into(),
            template: FragmentTemplate::of_answer(answer),
            requests: Budget::new(MOST_REQUESTS, REQUEST_EARNED),
        }
    }
}

/// RFC 9725 §4.3.1: "a unique strong entity-tag identifying the ICE session".
fn etag(random: [u8; 8]) -> String {
    format!("\"{:016x}\"", u64::from_be_bytes(random))
}

impl Node {
    /// Whether a PATCH may go on, before its body is read: takes one from the session's budget.
    ///
    /// # Errors
    /// `UnknownSession`, `OtherIceSession` or `TooMany`.
    #[expect(clippy::disallowed_methods, reason = "a client's requests are counted by the wall")]
    pub fn admit_patch(
        &self,
        role: Role,
        table: &str,
        session: SessionId,
        condition: &IfMatch,
    ) -> Result<(), PatchRefusal> {
        let mut directory = self.directory();
        let ice = &mut directory.session_mut(role, table, session).ok_or(PatchRefusal::UnknownSession)?.ice;
        if !condition.admits(&ice.etag) {
            return Err(PatchRefusal::OtherIceSession);
        }
        if ice.requests.take(Instant::now()) {
            return Ok(());
        }
        Err(PatchRefusal::TooMany { retry_after: REQUEST_EARNED })
    }

    /// Takes the fragment of a PATCH. Candidates are read and forgotten; new credentials restart ICE, and from then on the
    /// session has another entity-tag.
    ///
    /// # Errors
    /// Every [`PatchRefusal`] but `TooMany`. RFC 9725 §4.3.3: the session MUST NOT end at once because a restart cannot be
    /// done; it does not.
    pub async fn patch(
        &self,
        role: Role,
        table: &str,
        session: SessionId,
        condition: &IfMatch,
        body: &[u8],
    ) -> Result<Patched, PatchRefusal> {
        let fragment = IceFragment::parse(body)?;
        let (restarted, done) = {
            let mut directory = self.directory();
            let found = directory.session_mut(role, table, session).ok_or(PatchRefusal::UnknownSession)?;
            // Again, since another request may have restarted ICE while this one's body arrived.
            if !condition.admits(&found.ice.etag) {
                return Err(PatchRefusal::OtherIceSession);
            }
            match fragment.restart(&found.ice.remote_ufrag)? {
                Some(ufrag) => self.restart_ice(found, ufrag)?,
                None => return Ok(Patched::Trickled),
            }
        };
        // Its shard no longer knows it: the end is on its way to the directory.
        if done.await.unwrap_or(false) { Ok(restarted) } else { Err(PatchRefusal::UnknownSession) }
    }

    /// Gives the session new credentials, for a peer whose ufrag is `remote_ufrag` from now on.
    ///
    /// The caller holds the directory, so that two restarts reach directory and shard in the same order; hence no wait
    /// for room in the shard's queue either.
    fn restart_ice(
        &self,
        session: &mut Session,
        remote_ufrag: &str,
    ) -> Result<(Patched, oneshot::Receiver<bool>), PatchRefusal> {
        let (mut secret, mut tag) = ([0; 21], [0; 8]);
        for bytes in [&mut secret[..], &mut tag[..]] {
            getrandom::fill(bytes).map_err(|_| PatchRefusal::Busy)?;
        }
        let (ufrag, local) = new_credentials(secret, session.shard.0, session.key.slot);
        let fragment = session.ice.template.with(&local);
        let (reply, done) = oneshot::channel();
        let command = Command::RestartIce { key: session.key, ufrag, local, remote_ufrag: remote_ufrag.into(), reply };
        self.commands(session.shard).try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => PatchRefusal::Busy,
            TrySendError::Closed(_) => PatchRefusal::UnknownSession,
        })?;
        let ice = &mut session.ice;
        ice.remote_ufrag = remote_ufrag.into();
        ice.etag = etag(tag);
        Ok((Patched::Restarted { fragment, etag: ice.etag.clone() }, done))
    }
}
