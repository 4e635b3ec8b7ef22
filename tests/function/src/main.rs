// SPDX-License-Identifier: GPL-2.0-only

//! Init of a function microVM: the stages of the image and compile chains, called by HTTP. README.md says what it is
//! asked and told.

mod housekeeping;
mod server;
mod stage;
mod store;
mod tcc;

use std::convert::Infallible;
use std::error::Error;
use std::str::FromStr;

use sleepy_guest::setting;

/// What the program does while there is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// Gives the CPU back.
    Halt,
    /// Asks for news again and again.
    Busypoll,
    /// Gives the CPU back, but for so many percent of it.
    Housekeeping(u32),
}

impl FromStr for Wait {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let percent = || text.strip_prefix("housekeeping")?.parse().ok();
        match (text, percent()) {
            ("halt", _) => Ok(Self::Halt),
            ("busypoll", _) => Ok(Self::Busypoll),
            (_, Some(percent @ 1..=99)) => Ok(Self::Housekeeping(percent)),
            _ => Err(format!(
                "wait={text}: give halt, busypoll, or housekeeping1 to housekeeping99"
            )),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    match serve()? {}
}

fn serve() -> Result<Infallible, Box<dyn Error>> {
    sleepy_guest::init()?;
    let wait = setting("wait").map_or(Ok(Wait::Halt), |text| text.parse())?;
    if let Wait::Housekeeping(percent) = wait {
        housekeeping::start(percent)?;
    }
    Ok(server::run(wait == Wait::Busypoll, || println!("READY"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn housekeeping_has_a_share() {
        assert_eq!("housekeeping55".parse(), Ok(Wait::Housekeeping(55)));
        for text in [
            "housekeeping",
            "housekeeping0",
            "housekeeping100",
            "poll",
            "",
        ] {
            assert!(text.parse::<Wait>().is_err(), "{text}");
        }
    }
}
