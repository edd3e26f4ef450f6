//! What `check-config` says about a good file.

use std::fmt;

use super::{BetServiceKind, Config, NatsServer, ServiceUrl, Table, TableName};

/// Prints a checked configuration as a few lines for people.
pub struct Summary<'a>(pub(super) &'a Config);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config { http, admin, media, sessions, .. } = self.0;
        match &http.tls.certificate {
            Some(certificate) => writeln!(f, "  public HTTPS {}, certificate {}", http.listen, certificate.display())?,
            None => writeln!(f, "  public HTTP  {}", http.listen)?,
        }
        match &http.public_url {
            Some(url) => writeln!(f, "  public URL   {url}")?,
            None => writeln!(f, "  public URL   from each request's Host header")?,
        }
        writeln!(f, "  admin HTTP   {}", admin.listen)?;
        let shards = match (media.shards, media.pin_shards) {
            (0, false) => "one shard per core".to_owned(),
            (0, true) => "a core for each shard and one for all else".to_owned(),
            (n, false) => format!("{n} shards"),
            (n, true) => format!("{n} shards with a core each"),
        };
        writeln!(f, "  media        UDP on {} from port {}, {shards}", media.listen, media.first_port)?;
        let core = match sessions.max_shard_utilisation_percent {
            100.. => String::new(),
            percent => format!(" and while it uses at most {percent} % of its core"),
        };
        writeln!(f, "  players      at most {} per shard{core}", sessions.max_players_per_shard)?;
        self.tokens(f)?;
        self.bet_service(f)?;
        self.tables(f)?;
        self.audit(f)?;
        self.traces(f)
    }
}

impl Summary<'_> {
    fn bet_service(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let service = &self.0.bet_service;
        let known = if service.tls.certificate.is_some() { ", with a certificate of the node's own" } else { "" };
        match service.kind {
            BetServiceKind::None => writeln!(f, "  bet service  none: bets are refused"),
            BetServiceKind::Embedded => writeln!(f, "  bet service  the demo's wheel"),
            BetServiceKind::Http => {
                let url = service.http.url.as_ref().map_or("", ServiceUrl::as_str);
                let rounds = if service.http.events_url.is_some() { "" } else { ", without round events" };
                writeln!(f, "  bet service  {url}{known}{rounds}")
            }
            BetServiceKind::Nats => {
                let servers = addresses(&service.nats.servers);
                writeln!(f, "  bet service  {}.bets.* on {servers}{known}", service.nats.subject_prefix)
            }
        }
    }

    fn audit(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let audit = &self.0.audit;
        let Some(directory) = &audit.directory else {
            return write!(f, "\n  audit trail  none: set [audit] directory to record bet signals");
        };
        write!(f, "\n  audit trail  {}", directory.display())?;
        if let Some(sink) = &audit.sink_directory {
            write!(f, ", copied to {}", sink.display())?;
        }
        if let Some(bucket) = &audit.s3.bucket {
            let s3 = &audit.s3;
            write!(f, ", copied to s3://{bucket}/{} and locked for {} days", s3.prefix, s3.retain_days)?;
        }
        let jetstream = &audit.jetstream;
        if let Some(stream) = &jetstream.stream {
            let what = if jetstream.segments { "copied" } else { "its checkpoints alone copied" };
            let servers = addresses(&jetstream.servers);
            write!(f, ", {what} to the stream {stream} as {}.> on {servers}", jetstream.subject_prefix)?;
        }
        Ok(())
    }

    fn traces(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let traces = &self.0.traces;
        let Some(endpoint) = &traces.endpoint else { return Ok(()) };
        // A query may hold a key.
        let place = endpoint.as_str().split('?').next().unwrap_or_default();
        write!(f, "\n  traces       {} of all bet signals, to {place}", traces.sample_ratio)
    }

    fn tables(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config { tables, .. } = self.0;
        if tables.is_empty() {
            return write!(f, "  tables       none: add a section [tables.NAME] for each, or nothing can be published");
        }
        let told = |(name, table): (&TableName, &Table)| match table.max_layer() {
            Some(highest) => format!("{} (max_layer {highest})", name.as_str()),
            None => name.as_str().to_owned(),
        };
        write!(f, "  tables       {}", tables.iter().map(told).collect::<Vec<_>>().join(", "))
    }

    fn tokens(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config { auth, keys, .. } = self.0;
        if !self.0.wants_tokens() {
            return writeln!(f, "  tokens       NONE ARE ASKED FOR: whoever reaches this node publishes and watches");
        }
        match (&auth.jwks_url, &auth.jwks_file) {
            (Some(url), _) => write!(f, "  tokens       keys from {url}")?,
            (None, Some(file)) => {
                write!(f, "  tokens       {} keys in {}{}", keys.len(), file.display(), keys.ignored())?
            }
            (None, None) => write!(f, "  tokens       no keys: nobody can publish or watch")?,
        }
        writeln!(f, ", jurisdictions {}", auth.jurisdictions.join(", "))
    }
}

fn addresses(servers: &[NatsServer]) -> String {
    servers.iter().map(NatsServer::as_str).collect::<Vec<_>>().join(", ")
}
