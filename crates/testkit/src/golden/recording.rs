//! The files of `oracle/golden/xmit`.

use std::collections::BTreeMap;

use dirigent_config::Model;
use serde::Deserialize;

use super::bed::Side;
use super::setup::{self, NoSetup};
use crate::decode::unhex;

/// A recording.
#[derive(Debug, Deserialize)]
pub struct Recording {
    /// Its name.
    pub name: String,
    /// MTU of r0.
    #[serde(default = "ethernet")]
    pub mtu_servers: u32,
    /// MTU of c0.
    #[serde(default = "ethernet")]
    pub mtu_c: u32,
    /// Arguments of `ip`, run before the services.
    #[serde(default)]
    pub routes: Vec<String>,
    /// Kernel parameters, set before the services.
    #[serde(default)]
    pub sysctls: BTreeMap<String, i64>,
    /// `ipvsadm ARGS`.
    pub setup: Vec<String>,
    /// What happened, in order.
    pub steps: Vec<Step>,
}

fn ethernet() -> u32 {
    1500
}

/// One step: a frame with what came out, or rows of the connection table.
#[derive(Debug, Deserialize)]
pub struct Step {
    /// What it is about.
    #[serde(default)]
    pub note: String,
    /// The side that the frame came in by.
    #[serde(rename = "in")]
    pub side: Option<String>,
    /// The frame, hexadecimal.
    pub frame: Option<String>,
    /// What came out.
    #[serde(default)]
    pub out: Vec<Out>,
    /// The rows.
    pub conns: Option<Vec<[String; 6]>>,
}

/// A frame that came out.
#[derive(Debug, Deserialize)]
pub struct Out {
    /// By which side.
    pub side: String,
    /// Hexadecimal.
    pub frame: String,
}

/// The side of that name.
pub fn side(name: &str) -> Result<Side, String> {
    Side::ALL.into_iter().find(|side| side.name() == name).ok_or_else(|| format!("no side is called {name}"))
}

impl Step {
    /// The frame that comes in.
    pub fn input(&self) -> Result<(Side, Vec<u8>), String> {
        let missing = || format!("step {:?} has neither frame nor rows", self.note);
        Ok((side(self.side.as_deref().ok_or_else(missing)?)?, unhex(self.frame.as_deref().ok_or_else(missing)?)?))
    }
    /// The frames that came out.
    pub fn output(&self) -> Result<Vec<(Side, Vec<u8>)>, String> {
        self.out.iter().map(|out| Ok((side(&out.side)?, unhex(&out.frame)?))).collect()
    }
}

impl Recording {
    /// The Model of the set-up.
    pub fn model(&self) -> Result<Model, NoSetup> {
        let sysctls = self.sysctls.iter().map(|(name, value)| (name.as_str(), *value));
        setup::model(sysctls, self.setup.iter().map(String::as_str))
    }
}
