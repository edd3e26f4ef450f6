//! What is measured: the node, or somebody else's server in its place.

use std::path::Path;

use clap::ValueEnum;

use crate::janus::Janus;
use crate::lab::Lab;
use crate::measure::Plan;
use crate::node::{Allocations, Node};

/// Which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Ours.
    Node,
    /// Janus of Debian, its VideoRoom.
    Janus,
}

impl Kind {
    /// Whether it can be measured on this machine.
    ///
    /// # Errors
    /// Says what to install.
    pub fn is_installed(self) -> anyhow::Result<()> {
        match self {
            Self::Node => Ok(()),
            Self::Janus => Janus::is_installed(),
        }
    }
}

/// The running server.
pub enum Server {
    /// Ours.
    Node(Node),
    /// Janus, with WHIP and WHEP.
    Janus(Janus),
}

impl Server {
    /// Starts it at its end of the cable, and waits until it is ready.
    ///
    /// # Errors
    /// It does not get ready.
    pub fn start(plan: &Plan, lab: &Lab, folder: &Path) -> anyhow::Result<Self> {
        Ok(match plan.server {
            Kind::Node => Self::Node(Node::start(plan, lab, folder)?),
            Kind::Janus => Self::Janus(Janus::start(lab, folder)?),
        })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        match self {
            Self::Node(node) => node.pid(),
            Self::Janus(janus) => janus.pid(),
        }
    }

    /// Where WHIP and WHEP are, up to the table's name.
    pub fn url(&self, kind: &str) -> String {
        match self {
            Self::Node(node) => node.url(kind),
            Self::Janus(janus) => janus.url(kind),
        }
    }

    /// Tells how often it has allocated, if it counts that.
    pub fn allocations(&self) -> Option<Allocations> {
        match self {
            Self::Node(node) => Some(node.allocations()),
            Self::Janus(_) => None,
        }
    }

    /// Ends it.
    ///
    /// # Errors
    /// It did not end well, or had ended before.
    pub fn stop(self) -> anyhow::Result<()> {
        match self {
            Self::Node(node) => node.stop(),
            Self::Janus(janus) => janus.stop(),
        }
    }
}
