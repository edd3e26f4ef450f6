//! The command line, nothing else.

use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tableside::audit::jetstream::{self, Fetched, JetstreamOptions};
use tableside::audit::{self, ExportOptions, Inspected, VerifyOptions};
use tableside::bets::audit::{Format, Timestamp};
use tableside::config::Config;
use tableside::run;
use tableside::run::token::{Keygen, Mint};

/// WebRTC live-streaming edge gateway for live-dealer tables: WHIP in, WHEP out.
#[derive(Parser)]
#[command(version, after_help = "Example:\n  tableside demo\n\nthen open http://127.0.0.1:8080/play/demo")]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a node as a configuration file says, until SIGTERM or SIGINT
    #[command(after_help = "Example:\n  tableside gateway --config /etc/tableside/gateway.toml")]
    Gateway {
        /// The configuration; config/gateway.toml documents every key
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Run a node with a dealer of its own: no configuration, no tokens, HTTP on this machine only
    #[command(after_help = "Example:\n  tableside demo\n  tableside demo --http 127.0.0.1:8180 --admin 127.0.0.1:9190")]
    Demo(Demo),
    /// Check a configuration file and the files it names, without starting anything
    #[command(after_help = "Example:\n  tableside check-config config/gateway.toml\n\n\
                            Exit status: 0 if `gateway` would accept it, 1 if not.")]
    CheckConfig {
        /// The configuration
        file: PathBuf,
    },
    /// Make a token for development; in production they come from the casino's issuer
    #[command(
        args_conflicts_with_subcommands = true,
        subcommand_negates_reqs = true,
        after_help = "Example:\n  tableside token --key dev-key.pem --sub ann --role player --table roulette --for 1h\n  \
                      tableside token --sub studio-1 --role publisher --jurisdiction MT --for 30d\n  \
                      tableside token keygen\n\n\
                      The token goes to standard output, the rest to standard error. Without a key one is made, as by keygen."
    )]
    Token {
        #[command(subcommand)]
        command: Option<TokenCommand>,
        #[command(flatten)]
        mint: Mint,
    },
    /// Verify and export the audit trail of bet signals, and make the key that signs it
    #[command(
        subcommand,
        after_help = "Example:\n  tableside audit verify --key audit.key.pub /var/lib/tableside/audit"
    )]
    Audit(AuditCommand),
}

#[derive(Subcommand)]
enum TokenCommand {
    /// Make a key to sign development tokens with, and put its public half into a JWK Set
    #[command(after_help = "Example:\n  tableside token keygen\n  tableside token keygen --key next-key.pem\n\n\
                            The second adds a key to the set of the first, as an issuer does that changes its key.")]
    Keygen(Keygen),
}

#[derive(Subcommand)]
enum AuditCommand {
    /// Say whether a trail is as it was written, and if not, where
    #[command(after_help = "Examples:
  tableside audit verify --key audit.key.pub /var/lib/tableside/audit
  tableside audit verify --key audit.key.pub --node edge-1 --checkpoint /mnt/audit/edge-1/CHAIN /var/lib/tableside/audit
  tableside audit verify --json --partial --key audit.key.pub audit-0000000007.jsonl audit-0000000008.jsonl

Exit status: 0 if it is intact, 1 if not, 2 if that cannot be said.
docs/audit.md says what is detected, and what cannot be.")]
    Verify {
        /// Directories with segments, or segments in their order
        #[arg(required = true, value_name = "DIR|FILE")]
        paths: Vec<PathBuf>,
        /// A public key that has signed (keygen writes it, FILE.pub); without one signatures are not checked
        #[arg(long = "key", value_name = "FILE")]
        keys: Vec<PathBuf>,
        /// A checkpoint that was exported and kept where the trail's writer cannot change it, or the directory in the sink
        /// with all of a chain's
        #[arg(long = "checkpoint", value_name = "DIR|FILE")]
        checkpoints: Vec<PathBuf>,
        /// It has to be this node's
        #[arg(long, value_name = "NAME")]
        node: Option<String>,
        /// The first segments were removed on purpose
        #[arg(long)]
        partial: bool,
        /// No record may follow the last checkpoint: the node has ended as it should
        #[arg(long)]
        sealed: bool,
        /// One JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// Write records as CSV or JSON Lines to standard output
    #[command(after_help = "Examples:
  tableside audit export --format csv --from 2026-09-21 --to 2026-09-22 /var/lib/tableside/audit > day.csv
  tableside audit export --format jsonl --table roulette-1 --player ann /var/lib/tableside/audit

The chain is verified meanwhile, all but its signatures.
Exit status: 0 if it is intact, 1 if not (the records are there all the same), 2 if something cannot be read or written.")]
    Export {
        /// Directories with segments, or segments in their order
        #[arg(required = true, value_name = "DIR|FILE")]
        paths: Vec<PathBuf>,
        /// The form
        #[arg(long, value_enum)]
        format: ExportFormat,
        /// Signals received at this time (UTC) or later, such as 2026-09-21 or 2026-09-21T10:00:07.048
        #[arg(long, value_name = "TIME")]
        from: Option<Timestamp>,
        /// Signals received before this time
        #[arg(long, value_name = "TIME")]
        to: Option<Timestamp>,
        /// Signals of this table; may be repeated
        #[arg(long = "table", value_name = "NAME")]
        tables: Vec<String>,
        /// Signals of this player; may be repeated
        #[arg(long = "player", value_name = "ID")]
        players: Vec<String>,
        /// The secret of audit.player_key_file, to find players whose ids were hashed
        #[arg(long, value_name = "FILE")]
        player_key: Option<PathBuf>,
        /// The first segments were removed on purpose
        #[arg(long)]
        partial: bool,
        /// CSV without the byte order mark that Excel needs and programs trip over
        #[arg(long)]
        no_bom: bool,
    },
    /// Write a node's checkpoints and segments out of the stream of [audit.jetstream], in the form that verify takes
    #[command(after_help = "Examples:
  tableside audit fetch --config /etc/tableside/gateway.toml fetched
  tableside audit fetch --config auditor.toml --node edge-1 fetched
  tableside audit verify --key audit.key.pub --node edge-1 --checkpoint fetched/CHAIN /var/lib/tableside/audit

Exit status: 0 if all that is there is as a node writes it, 1 if not (each thing is named), 2 if something cannot be read or written.")]
    Fetch {
        /// The gateway's configuration, or one that has its [audit.jetstream]
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Whose; by default the configuration's own
        #[arg(long, value_name = "NAME")]
        node: Option<String>,
        /// Where each chain gets a directory
        #[arg(value_name = "DIR")]
        into: PathBuf,
    },
    /// Make an Ed25519 key that signs checkpoints: FILE, and FILE.pub to verify with
    #[command(after_help = "Example:\n  tableside audit keygen audit.key\n\n\
                            `openssl genpkey -algorithm ed25519` makes the same kind of key.")]
    Keygen {
        /// Where the private half goes; it must not exist
        file: PathBuf,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum ExportFormat {
    /// RFC 4180, safe for spreadsheets
    Csv,
    /// The records as they stand in the trail
    Jsonl,
}

#[derive(Args)]
struct Demo {
    /// Where pages, WHIP and WHEP are served
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = Config::demo().http.listen)]
    http: SocketAddr,
    /// Where metrics and health are served
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = Config::demo().admin.listen)]
    admin: SocketAddr,
    /// UDP port of the first shard
    #[arg(long, value_name = "PORT", default_value_t = Config::demo().media.first_port,
          value_parser = clap::value_parser!(u16).range(1..))]
    first_port: u16,
}

fn main() -> ExitCode {
    let outcome = match CommandLine::parse().command {
        Command::Gateway { config } => gateway(&config),
        Command::Demo(options) => run::gateway(demo(&options)),
        Command::CheckConfig { file } => check_config(&file),
        Command::Token { command: Some(TokenCommand::Keygen(options)), .. } => run::token::keygen(&options),
        Command::Token { command: None, mint } => run::token::mint(&mint),
        Command::Audit(command) => return self::audit(command),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn gateway(file: &Path) -> anyhow::Result<()> {
    run::gateway(Config::load(file)?)
}

fn demo(options: &Demo) -> Config {
    let mut config = Config::demo();
    config.http.listen = options.http;
    config.admin.listen = options.admin;
    config.media.first_port = options.first_port;
    config
}

/// Exit status 2, so that 1 means what it says of a trail.
fn audit(command: AuditCommand) -> ExitCode {
    match inspect(command) {
        Ok(intact) => ExitCode::from(u8::from(!intact)),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// `false` for a trail that is not intact.
fn inspect(command: AuditCommand) -> anyhow::Result<bool> {
    match command {
        AuditCommand::Verify { paths, keys, checkpoints, node, partial, sealed, json } => {
            let Inspected { verdict, .. } =
                audit::verify(&VerifyOptions { paths, keys, checkpoints, node, partial, sealed })?;
            let text = if json { audit::show_json(&verdict) + "\n" } else { audit::show_text(&verdict) };
            io::stdout().write_all(text.as_bytes())?;
            Ok(verdict.is_intact())
        }
        AuditCommand::Export { paths, format, from, to, tables, players, player_key, partial, no_bom } => {
            let format = match format {
                ExportFormat::Csv => Format::Csv,
                ExportFormat::Jsonl => Format::JsonLines,
            };
            let byte_order_mark = !no_bom;
            let options =
                ExportOptions { paths, format, byte_order_mark, partial, from, to, tables, players, player_key };
            let Inspected { verdict, rows } = audit::export(&options, &mut BufWriter::new(io::stdout().lock()))?;
            for finding in &verdict.findings {
                eprintln!("{finding}");
            }
            let outcome = if verdict.is_intact() { "intact" } else { "NOT intact" };
            eprintln!("{rows} records exported; the chain is {outcome} (signatures: `tableside audit verify --key`)");
            Ok(verdict.is_intact())
        }
        AuditCommand::Fetch { config, node, into } => fetch(&Config::load(&config)?, node, &into),
        AuditCommand::Keygen { file } => {
            let (public, id) = audit::generate_key(&file)?;
            println!("key {id}\n  signs     {}: keep it on the node, for the gateway alone", file.display());
            println!("  verifies  {}: give it to whoever is to verify", public.display());
            Ok(true)
        }
    }
}

/// `false` where something is not as a node writes it.
fn fetch(config: &Config, node: Option<String>, into: &Path) -> anyhow::Result<bool> {
    let node = node.unwrap_or_else(|| audit::node_name(&config.audit));
    anyhow::ensure!(tableside::config::Audit::is_node_name(&node), "{node:?} is no name of a node");
    let options = JetstreamOptions::from_config(&config.audit.jetstream);
    let options =
        options.ok_or_else(|| anyhow::anyhow!("audit.jetstream.stream is not set: there is nothing to fetch from"))?;
    let Fetched { chains, checkpoints, segments, findings } = jetstream::fetch(&options, &node, into)?;
    for finding in &findings {
        eprintln!("{finding}");
    }
    println!("{checkpoints} checkpoints and {segments} segments of node {node}");
    for chain in chains {
        println!("  {}", into.join(chain).display());
    }
    Ok(findings.is_empty())
}

fn check_config(file: &Path) -> anyhow::Result<()> {
    let config = Config::load(file)?;
    println!("{}: OK\n{}", file.display(), config.summary());
    Ok(())
}
