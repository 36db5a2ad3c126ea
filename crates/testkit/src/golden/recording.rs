//! The files of `oracle/golden/xmit`.

use std::collections::BTreeMap;

use dirigent_config::{Command, Model};
use serde::Deserialize;

use super::bed::Side;
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

/// Why a set-up cannot be had.
#[derive(Debug)]
pub enum NoSetup {
    /// This version has not got it yet.
    NotYet(String),
    /// It makes no sense.
    Wrong(String),
}

impl Recording {
    /// The Model of the set-up.
    pub fn model(&self) -> Result<Model, NoSetup> {
        let mut model = Model::default();
        let mut settings = model.settings().clone();
        // The bed's own error limits are off: icmp_ratelimit 0.
        (settings.errors.rate, settings.errors.destination_rate) = (0, 0);
        for (name, value) in &self.sysctls {
            settings.ipvs_sysctl(name, *value).map_err(|e| NoSetup::NotYet(e.to_string()))?;
        }
        model.set_settings(settings).map_err(|e| NoSetup::Wrong(e.to_string()))?;
        for line in &self.setup {
            let words: Vec<&str> = line.split_whitespace().skip_while(|word| *word == "ipvsadm").collect();
            let command = Command::from_args(&words).map_err(|e| NoSetup::Wrong(format!("{line}: {e}")))?;
            command.apply(&mut model).map_err(|e| match e {
                dirigent_config::IpvsError::Unsupported(what) => NoSetup::NotYet(what.to_string()),
                other => NoSetup::Wrong(format!("{line}: {other}")),
            })?;
        }
        match model.unsupported().into_iter().next() {
            Some(what) => Err(NoSetup::NotYet(what.to_string())),
            None => Ok(model),
        }
    }
}
