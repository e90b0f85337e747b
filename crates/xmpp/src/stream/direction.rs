//! How frames are read and faults end a stream, which is the same in both directions.

use std::time::Instant;

use super::{CloseCause, StreamFault, StreamPolicy, wire::Wire};
use crate::{framer::Frame, stream_error::StreamCondition};

/// One direction of a stream, for what both do alike.
pub(super) trait Direction {
    fn wire(&mut self) -> &mut Wire;

    /// True while TLS is being made: no byte may come in the clear.
    fn awaits_tls(&self) -> bool;

    fn handle_frame(
        &mut self,
        frame: Frame,
        now: Instant,
        policy: &dyn StreamPolicy,
    ) -> Result<(), StreamFault>;

    /// Ends the stream with an error, where one can still be said.
    fn end_with(
        &mut self,
        condition: StreamCondition,
        text: Option<&str>,
        application: Option<&str>,
        cause: CloseCause,
    );

    /// Takes every frame that is whole, until TLS must come or the stream is over.
    fn read_frames(&mut self, now: Instant, policy: &dyn StreamPolicy) {
        while !self.wire().is_closed() {
            if self.awaits_tls() {
                if self.wire().framer.buffered() > 0 {
                    self.fail(StreamFault::BytesBeforeTls);
                }
                return;
            }
            match self.wire().next_frame() {
                Ok(None) => return,
                Ok(Some(frame)) => {
                    if let Err(fault) = self.handle_frame(frame, now, policy) {
                        self.fail(fault);
                    }
                }
                Err(fault) => self.fail(fault),
            }
        }
        self.wire().framer.forget();
    }

    /// Ends the stream for what the peer did.
    fn fail(&mut self, fault: StreamFault) {
        let condition = fault.stream_condition();
        let text = fault.to_string();
        self.end_with(condition, Some(&text), fault.application_condition(), CloseCause::Fault(fault));
    }
}
