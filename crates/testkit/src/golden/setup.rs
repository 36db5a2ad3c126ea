//! Set-ups: ipvsadm's lines and kernel parameters, as a Model.

use dirigent_config::{Command, IpvsError, Model};

/// Why a set-up cannot be had.
#[derive(Debug)]
pub enum NoSetup {
    /// This version has not got it yet.
    NotYet(String),
    /// It makes no sense.
    Wrong(String),
}

/// The Model that kernel parameters and `ipvsadm ARGS` lines make.
pub fn model<'s>(
    sysctls: impl Iterator<Item = (&'s str, i64)>,
    lines: impl Iterator<Item = &'s str>,
) -> Result<Model, NoSetup> {
    let mut model = Model::default();
    let mut settings = model.settings().clone();
    // The bed's own error limits are off: icmp_ratelimit 0.
    (settings.errors.rate, settings.errors.destination_rate) = (0, 0);
    for (name, value) in sysctls {
        settings.ipvs_sysctl(name, value).map_err(|e| NoSetup::NotYet(e.to_string()))?;
    }
    model.set_settings(settings).map_err(|e| NoSetup::Wrong(e.to_string()))?;
    for line in lines {
        command(line)?.apply(&mut model).map_err(|e| match e {
            IpvsError::Unsupported(what) => NoSetup::NotYet(what.to_string()),
            other => NoSetup::Wrong(format!("{line}: {other}")),
        })?;
    }
    Ok(model)
}

fn command(line: &str) -> Result<Command, NoSetup> {
    let parsed = Command::parse(line).map_err(|e| NoSetup::Wrong(format!("{line}: {e}")))?;
    parsed.ok_or_else(|| NoSetup::Wrong("an empty line".into()))
}
