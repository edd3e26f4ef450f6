//! The command line, nothing else.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
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
}

#[derive(Subcommand)]
enum TokenCommand {
    /// Make a key to sign development tokens with, and put its public half into a JWK Set
    #[command(after_help = "Example:\n  tableside token keygen\n  tableside token keygen --key next-key.pem\n\n\
                            The second adds a key to the set of the first, as an issuer does that changes its key.")]
    Keygen(Keygen),
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

fn check_config(file: &Path) -> anyhow::Result<()> {
    let config = Config::load(file)?;
    println!("{}: OK\n{}", file.display(), config.summary());
    Ok(())
}
