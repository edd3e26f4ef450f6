//! The demo's own bet service: a wheel with 37 numbers, rounds for every live table, credits that buy nothing.

mod accounts;
mod casino;
mod wheel;

use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;

use crate::bets::{Outcome, Passed};

use self::casino::Casino;
use super::report::{Meter, RequestResult, ServiceKind};
use super::{Connector, Said, ServiceEnd};

/// The embedded service with its rounds.
#[derive(Debug, Default)]
pub struct Embedded;

impl Connector for Embedded {
    async fn run(self, mut end: ServiceEnd) {
        end.meter.is_of(ServiceKind::Embedded);
        let (epoch, unix) = clocks();
        let mut casino = Casino::new(epoch, unix);
        loop {
            let wake = casino.poll_timeout();
            let idle = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                passed = end.requests.recv() => match passed {
                    Some(passed) => {
                        if !answer(&mut casino, &end.said, &end.meter, &passed).await {
                            return;
                        }
                    }
                    None => return,
                },
                Some(change) = end.tables.recv() => casino.handle_table(now(), &change.table, change.live),
                () = idle => {}
            }
            if casino.poll_timeout().is_some_and(|at| at <= now()) {
                let mut random = [0; 8];
                if let Err(error) = getrandom::fill(&mut random) {
                    return tracing::error!(%error, "the wheel has no random numbers: there are no rounds any more");
                }
                casino.handle_timeout(now(), u64::from_be_bytes(random));
            }
            while let Some((table, event)) = casino.poll_event() {
                if end.said.send(Said::Round { table, event }).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// `false` if nobody is listening any more.
async fn answer(casino: &mut Casino, said: &mpsc::Sender<Said>, meter: &Meter, passed: &Passed) -> bool {
    let outcome = casino.handle_bet(now(), &passed.player, &passed.table, &passed.signal);
    let accepted = outcome == Outcome::Accepted;
    meter.request(if accepted { RequestResult::Accepted } else { RequestResult::Rejected });
    said.send(Said::Answer { ticket: passed.ticket, outcome }).await.is_ok()
}

#[expect(clippy::disallowed_methods, reason = "rounds are played in real time")]
fn now() -> Instant {
    Instant::now()
}

/// One reading of both clocks, so that a step of the wall clock changes nothing for rounds that are being played.
#[expect(clippy::disallowed_methods, reason = "rounds are played in real time")]
fn clocks() -> (Instant, Duration) {
    (Instant::now(), SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}
