//! What the HTTP side needs of the media plane.

use axum::body::Bytes;

use crate::audit::AuditReport;
use crate::bet_service::ServiceReport;
use crate::bets::{PlayerId, RoundReport};
use crate::config::MaxLayer;
use crate::fleet::{
    AdmissionReport, ClientNetwork, Created, IfMatch, Node, PatchRefusal, Patched, Refusal, SessionId, TableStatus,
};
use crate::identity::Subject;
use crate::shard::{Role, ShardReport};
use crate::traces::TraceReport;

/// The media plane as the HTTP side sees it: [`Node`], or a fake in tests. Cheap to clone.
///
/// A future that is dropped early (the client left, or the request timed out) must leave nothing behind but a session
/// that its setup timeout ends.
pub trait Sessions: Clone + Send + Sync + 'static {
    /// WHIP: takes an offer to publish `table`, from `publisher`, where it is known who that is: from the publisher of a live
    /// table the same subject takes over.
    fn publish(
        &self,
        client: ClientNetwork,
        table: &str,
        publisher: Option<Subject>,
        offer: Bytes,
    ) -> impl Future<Output = Result<Created, Refusal>> + Send;

    /// WHEP: takes an offer to watch `table`, from `player`, where it is known who that is, and which is given no layer
    /// above `max_layer`.
    fn play(
        &self,
        client: ClientNetwork,
        table: &str,
        player: Option<PlayerId>,
        max_layer: Option<MaxLayer>,
        offer: Bytes,
    ) -> impl Future<Output = Result<Created, Refusal>> + Send;

    /// Ends a session and frees all of it. `false` if there is none of this role and table.
    fn close(&self, role: Role, table: &str, session: SessionId) -> impl Future<Output = bool> + Send;

    /// The current entity-tag of a session, `None` if there is no such session.
    fn etag(&self, role: Role, table: &str, session: SessionId) -> Option<String>;

    /// Whether a PATCH may go on, before its body is read; it counts as one of those that a session is allowed.
    fn admit_patch(&self, role: Role, table: &str, session: SessionId, condition: &IfMatch)
    -> Result<(), PatchRefusal>;

    /// Takes the SDP fragment of a PATCH: candidates, or the credentials of an ICE restart.
    fn patch(
        &self,
        role: Role,
        table: &str,
        session: SessionId,
        condition: &IfMatch,
        fragment: &[u8],
    ) -> impl Future<Output = Result<Patched, PatchRefusal>> + Send;

    /// Whether there is a table of this name.
    fn knows(&self, table: &str) -> bool;

    /// The tables, by name.
    fn tables(&self) -> Vec<TableStatus>;

    /// The last report of every shard.
    fn reports(&self) -> Vec<ShardReport>;

    /// What admission has done so far.
    fn admission(&self) -> AdmissionReport;

    /// How rounds have ended so far.
    fn rounds(&self) -> RoundReport;

    /// What the connector to the bet service has done so far.
    fn bet_service(&self) -> ServiceReport;

    /// What the audit trail has done so far.
    fn audit(&self) -> AuditReport;

    /// What became of spans so far.
    fn traces(&self) -> TraceReport;

    /// What serving depends on, each with its name and, if it fails, why.
    fn readiness(&self) -> Vec<(&'static str, Result<(), String>)>;

    /// Admits no session any more: offers are refused with [`Refusal::ShuttingDown`] and readiness fails. Those who
    /// watch keep watching.
    fn drain(&self);
}

impl Sessions for Node {
    async fn publish(
        &self,
        client: ClientNetwork,
        table: &str,
        publisher: Option<Subject>,
        offer: Bytes,
    ) -> Result<Created, Refusal> {
        Node::publish(self, client, table, publisher, offer).await
    }

    async fn play(
        &self,
        client: ClientNetwork,
        table: &str,
        player: Option<PlayerId>,
        max_layer: Option<MaxLayer>,
        offer: Bytes,
    ) -> Result<Created, Refusal> {
        Node::play(self, client, table, player, max_layer, offer).await
    }

    async fn close(&self, role: Role, table: &str, session: SessionId) -> bool {
        Node::close(self, role, table, session).await
    }

    fn etag(&self, role: Role, table: &str, session: SessionId) -> Option<String> {
        Node::etag(self, role, table, session)
    }

    fn admit_patch(
        &self,
        role: Role,
        table: &str,
        session: SessionId,
        condition: &IfMatch,
    ) -> Result<(), PatchRefusal> {
        Node::admit_patch(self, role, table, session, condition)
    }

    async fn patch(
        &self,
        role: Role,
        table: &str,
        session: SessionId,
        condition: &IfMatch,
        fragment: &[u8],
    ) -> Result<Patched, PatchRefusal> {
        Node::patch(self, role, table, session, condition, fragment).await
    }

    fn knows(&self, table: &str) -> bool {
        Node::knows(self, table)
    }

    fn tables(&self) -> Vec<TableStatus> {
        Node::tables(self)
    }

    fn reports(&self) -> Vec<ShardReport> {
        Node::reports(self)
    }

    fn rounds(&self) -> RoundReport {
        Node::rounds(self)
    }

    fn bet_service(&self) -> ServiceReport {
        Node::bet_service(self)
    }

    fn admission(&self) -> AdmissionReport {
        Node::admission(self)
    }

    fn audit(&self) -> AuditReport {
        Node::audit(self)
    }

    fn traces(&self) -> TraceReport {
        Node::traces(self)
    }

    fn readiness(&self) -> Vec<(&'static str, Result<(), String>)> {
        Node::readiness(self)
    }

    fn drain(&self) {
        Node::drain(self);
    }
}
