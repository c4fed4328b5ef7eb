//! The query API over HTTP, on fakes of every port.

#[cfg(test)]
mod access;
#[cfg(test)]
mod audit;
#[cfg(test)]
mod definitions;
#[cfg(test)]
mod live;
#[cfg(test)]
mod openapi;
#[cfg(test)]
mod queries;
#[cfg(test)]
mod rig;
#[cfg(test)]
mod surface;
#[cfg(test)]
mod tokens;
