//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use tableside::demo::clip::ivf_frames;
use url::Url;

use crate::data_side::Says;
use crate::publisher::Programme;
use crate::source::{Recorded, Sizes};

/// Loads a WHIP and WHEP server with publishers and players.
///
/// Players are real ones: ICE, DTLS and SRTP, receiver reports, transport-wide feedback and retransmission requests as a
/// browser sends them. Publishers send synthetic VP8 and Opus whose payload says when it was sent, so that players which open
/// their packets (--verify) measure the delay from the publisher's send call to the receiving kernel, and see a changed byte.
#[derive(Clone, Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
pub struct Options {
    /// Where publishers post their offers; {table} is replaced by the table's name. Without it nothing is published.
    #[arg(long, value_name = "URL")]
    pub whip: Option<String>,

    /// Where players post their offers; {table} is replaced by the table's name, {player} by the player's
    /// number. Without it nobody watches.
    #[arg(long, value_name = "URL")]
    pub whep: Option<String>,

    /// Tables; players are spread over them.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub tables: u32,

    /// The tables' names: this and a number from 0 up. With one table, the name itself.
    #[arg(long, default_value = "load", value_name = "NAME")]
    pub table: String,

    /// Players that watch from the beginning.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub players: u32,

    /// How many of them join each second.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub join_rate: u32,

    /// More players, who join when the measurement begins.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub burst: u32,

    /// How many of those join each second; without it all at once.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub burst_rate: Option<u32>,

    /// How long to measure.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub seconds: u64,

    /// How long to wait after the last join before: a joiner gets the cached pictures faster than live.
    #[arg(long, default_value_t = 3, value_name = "SECONDS")]
    pub settle: u64,

    /// Frames a second.
    #[arg(long, default_value_t = 30, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=240))]
    pub fps: u32,

    /// Video bits a second: 800k, 2.5M. Frames vary in size and keyframes are larger.
    #[arg(long, default_value = "2.5M", value_name = "RATE", value_parser = bitrate)]
    pub bitrate: u64,

    /// Frames that are all alike, of so many packets, instead of --bitrate.
    #[arg(long, value_name = "N", conflicts_with = "bitrate", value_parser = clap::value_parser!(u32).range(1..=200))]
    pub packets: Option<u32>,

    /// Payload bytes of each of these packets.
    #[arg(long, default_value_t = 1150, value_name = "N", requires = "packets", value_parser = clap::value_parser!(u32).range(32..=1350))]
    pub bytes: u32,

    /// A recording in IVF (VP8), instead of --bitrate: its frames' sizes, its keyframes and its rate are sent, again and again. The
    /// contents are the generator's own, which say when they were sent.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["bitrate", "packets", "fps", "keyframe_interval"], value_parser = recording)]
    pub video: Option<Recording>,

    /// From keyframe to keyframe.
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS")]
    pub keyframe_interval: f64,

    /// Layers of a simulcast, each a quarter of the one before.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=3))]
    pub simulcast: u8,

    /// Send no sound.
    #[arg(long)]
    pub no_audio: bool,

    /// All tables send their frames at the same time, instead of spread over the frame interval.
    #[arg(long)]
    pub in_phase: bool,

    /// Leave a frame out that would be sent so much too late, because this generator was held up: sent all the same, the late
    /// frames of all tables come at once, as those of independent publishers never do. By default they are sent.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub leave_out_late: Option<u64>,

    /// The share of players that open and check every packet; at least one of each group does unless it is 0.
    #[arg(long, default_value_t = 0.05, value_name = "0..1", value_parser = share)]
    pub verify: f64,

    /// Between two transport-wide feedbacks of a player. By default as Chromium does it: 16 a second, or 4 where the answer
    /// has a line such as `b=TIAS:43000`, which is what the server wants to receive.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(10..=1000))]
    pub feedback_ms: Option<u64>,

    /// Bet signals that each player sends a second while it is measured, at random times, over data channels; each must have
    /// an outcome.
    #[arg(long, default_value_t = 0.0, value_name = "RATE", value_parser = bets)]
    pub bets: f64,

    /// Each player reports how it plays every two seconds over a data channel, as tableside's player SDK does.
    #[arg(long)]
    pub reports: bool,

    /// What publishers authenticate with (`Authorization: Bearer`). Better: the variable TABLESIDE_LOAD_PUBLISH_TOKEN.
    #[arg(long, value_name = "TOKEN")]
    pub publish_token: Option<String>,

    /// What players authenticate with. Better: the variable TABLESIDE_LOAD_TOKEN.
    #[arg(long, value_name = "TOKEN")]
    pub token: Option<String>,

    /// Accept any certificate of the server's HTTPS.
    #[arg(long)]
    pub insecure: bool,

    /// The address that peers send from.
    #[arg(long, value_name = "ADDRESS")]
    pub bind: Option<IpAddr>,

    /// The server's process, if it runs on this machine: its CPU time and memory are reported.
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,

    /// CPUs to run on, one thread with peers on each: 1 or 2,3.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub cores: Vec<usize>,

    /// Where the results go as JSON; - for standard output, instead of the table.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Exit with status 1 if a packet of those who watched was lost or changed.
    #[arg(long)]
    pub no_loss: bool,
}

const EXAMPLES: &str = "\
Examples:
  Two tables with a hundred players each, for a minute, and none may lose a packet:
    tableside-load --whip http://127.0.0.1:8080/whip/{table} --whep http://127.0.0.1:8080/whep/{table} \\
                   --tables 2 --players 200 --seconds 60 --no-loss
  What 200 players notice of 2000 who join at once, with the generator on the second CPU:
    tableside-load --whip URL --whep URL --players 200 --burst 2000 --cores 1
  A recorded table instead of made-up frames:
    tableside-load --whip URL --whep URL --players 200 --video table.ivf
  A thousand players of the demo who bet five times a second each:
    tableside-load --whep 'http://127.0.0.1:8080/whep/demo-vp8?player=load-{player}' --players 1000 --bets 5
  500 players of somebody else's stream, results as JSON:
    tableside-load --whep http://edge/whep/roulette-1 --players 500 --json -

Exit status: 0, or 1 if a peer could not join or was lost, a bet has no outcome, or --no-loss was broken; 2 if it could not begin.";

/// Between two reports of a player: the player SDK's.
const REPORTS: Duration = Duration::from_secs(2);

impl Options {
    /// What players say over data channels.
    pub fn says(&self) -> Says {
        let bets = (self.bets > 0.0).then(|| Duration::from_secs_f64(1.0 / self.bets));
        Says { bets, reports: self.reports.then_some(REPORTS) }
    }

    /// The name of table `n`.
    pub fn table_name(&self, n: u32) -> String {
        if self.tables == 1 { self.table.clone() } else { format!("{}-{n}", self.table) }
    }

    /// The endpoint of table `n`.
    ///
    /// # Errors
    /// It is no URL.
    pub fn url(&self, template: &str, n: u32) -> Result<Url, url::ParseError> {
        Url::parse(&template.replace("{table}", &self.table_name(n)))
    }

    /// The endpoint of player `n`, whose number takes the place of `{player}`.
    ///
    /// # Errors
    /// It is no URL.
    pub fn player_url(&self, template: &str, n: u32) -> Result<Url, url::ParseError> {
        self.url(&template.replace("{player}", &n.to_string()), n % self.tables)
    }

    /// What each publisher sends.
    pub fn programme(&self) -> Programme {
        Programme {
            fps: self.video.as_ref().map_or(self.fps, |video| video.fps),
            sizes: match (&self.video, self.packets) {
                (Some(video), _) => Sizes::Recorded(video.frames.clone()),
                (None, Some(packets)) => Sizes::Fixed { packets: packets as usize, bytes: self.bytes as usize },
                (None, None) => Sizes::Varied { bitrate: self.bitrate },
            },
            keyframe_interval: Duration::from_secs_f64(self.keyframe_interval),
            layers: self.simulcast.into(),
            audio: !self.no_audio,
            latest: self.leave_out_late.map(Duration::from_millis),
        }
    }

    /// What cannot be told by looking at one option alone.
    ///
    /// # Errors
    /// Says what is wrong and what to do.
    pub fn check(&self) -> Result<(), String> {
        if self.whip.is_none() && self.whep.is_none() {
            return Err(
                "nothing to do: give --whip URL to publish, --whep URL with --players N to watch, or both".into()
            );
        }
        if self.whep.is_some() && self.players == 0 && self.burst == 0 {
            return Err("--whep needs --players N or --burst N".into());
        }
        if self.whep.is_none() && (self.players > 0 || self.burst > 0) {
            return Err("players need --whep URL".into());
        }
        for (name, url) in [("--whip", &self.whip), ("--whep", &self.whep)] {
            if let Some(url) = url {
                if self.tables > 1 && !url.contains("{table}") {
                    return Err(format!("{name} {url}: with --tables {} it needs {{table}} for the name", self.tables));
                }
                self.url(url, 0).map_err(|error| format!("{name} {url} is no URL: {error}"))?;
            }
        }
        if !(self.keyframe_interval > 0.0 && self.keyframe_interval < 3600.0) {
            return Err("--keyframe-interval is a number of seconds above 0".into());
        }
        Ok(())
    }
}

fn bitrate(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1e3),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1e6),
        _ => (text, 1.0),
    };
    let bits = number.parse::<f64>().map_err(|_| "a number of bits a second, as 800k or 2.5M".to_owned())? * unit;
    if (10e3..=200e6).contains(&bits) { Ok(bits as u64) } else { Err("between 10k and 200M".into()) }
}

/// What is taken from a recording.
#[derive(Clone, Debug)]
pub struct Recording {
    fps: u32,
    frames: Arc<[Recorded]>,
}

fn recording(path: &str) -> Result<Recording, String> {
    let file = std::fs::read(path).map_err(|error| error.to_string())?;
    let (fps, frames) = ivf_frames(&file.into()).map_err(|error| format!("{error} of VP8, as FFmpeg makes it"))?;
    let frames: Arc<[Recorded]> =
        frames.iter().map(|frame| Recorded { bytes: frame.data.len(), keyframe: frame.keyframe }).collect();
    if !frames.first().is_some_and(|frame| frame.keyframe) {
        return Err("it does not begin with a keyframe".into());
    }
    Ok(Recording { fps, frames })
}

fn bets(text: &str) -> Result<f64, String> {
    let rate = text.parse().map_err(|_| "a number of signals a second".to_owned())?;
    if (0.0..=1000.0).contains(&rate) { Ok(rate) } else { Err("from 0 to 1000 a second".into()) }
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().map_err(|_| "a number from 0 to 1".to_owned())?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("a number from 0 to 1".into()) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(arguments: &str) -> Result<Options, String> {
        let words = ["tableside-load"].into_iter().chain(arguments.split_whitespace());
        let options = Options::try_parse_from(words).map_err(|error| error.to_string())?;
        options.check().map(|()| options)
    }

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn units_are_read() {
        let bits = |rate: &str| parse(&format!("--whip http://a/{{table}} --bitrate {rate}")).map(|o| o.bitrate);
        assert_eq!((bits("2.5M"), bits("800k"), bits("64000")), (Ok(2_500_000), Ok(800_000), Ok(64_000)));
        assert!(bits("much").unwrap_err().contains("as 800k or 2.5M"));
        assert!(bits("900M").unwrap_err().contains("between 10k and 200M"));
    }

    #[test]
    fn mistakes_are_named() {
        for (arguments, error) in [
            ("", "nothing to do"),
            ("--whep http://a/b", "--whep needs --players"),
            ("--whip http://a/b --players 3", "players need --whep"),
            ("--whip http://a/b --tables 2", "it needs {table}"),
            ("--whip nonsense", "is no URL"),
            ("--whip http://a/b --keyframe-interval 0", "above 0"),
            ("--whip http://a/b --verify 2", "from 0 to 1"),
        ] {
            let found = parse(arguments).unwrap_err();
            assert!(found.contains(error), "{arguments}: {found}");
        }
    }

    #[test]
    fn a_recording_gives_rate_and_sizes() {
        let clip = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/demo/dealer.ivf");
        let programme = parse(&format!("--whip http://a/b --video {clip}")).unwrap().programme();
        let Sizes::Recorded(frames) = &programme.sizes else { panic!("{:?}", programme.sizes) };
        assert_eq!((programme.fps, frames.len()), (30, 300), "ten seconds");
        assert!(frames[0].keyframe && frames[0].bytes > 5 * frames[1].bytes);
        for (words, error) in [
            (format!("--video {clip} --bitrate 1M"), "cannot be used with"),
            (format!("--video {}", file!().replace("tools/loadgen/", "")), "not an IVF file"),
            ("--video nowhere.ivf".to_owned(), "No such file"),
        ] {
            let found = parse(&format!("--whip http://a/b {words}")).unwrap_err();
            assert!(found.contains(error), "{words}: {found}");
        }
    }

    #[test]
    fn tables_have_names() {
        let one = parse("--whip http://a/b --table baccarat").unwrap();
        let two = parse("--whip http://a/{table} --tables 2").unwrap();
        assert_eq!((one.table_name(0), two.table_name(1)), ("baccarat".to_owned(), "load-1".to_owned()));
    }
}
