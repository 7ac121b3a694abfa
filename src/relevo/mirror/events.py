"""What goes into the mirror's core and what comes out: `Mirror.step(event) -> list of effects`.

Order. The effects of one step are UNORDERED, with one exception: `SendData` effects are one stream and keep their
order, and so do `SendMeta` effects. What must follow a write is emitted only by the step that handles its completion.
Effects of different steps are started in the order of the steps; disk completions may come in any order.

Tokens. An application request's token is the shell's (the core gives it back in `CompleteRequest`); the token of a
disk, meta-data or device effect is the core's (the shell gives it back in `DiskDone`, once). Both are opaque.

Buffers are opaque handles of the shell's; the core never looks inside.
- `AppWrite.buffer` stays the core's until `CompleteRequest` of that request: that is its release.
- A read (`DiskRead`) is answered with `DiskDone.buffer`; it is released by `CompleteRequest` that carries it, by a
  `SendData` that carries it with `release`, once it is sent or the link is closed, or by `ReleaseBuffer`.
- The payload of a `PacketReceived` stays the core's until `ReleaseBuffer` (or as above).
- A write's buffer may be in the shell's send queue as well as on its way to the disk: a core that completes or releases
  it has seen it acknowledged by the peer or the link closed. When a link is closed its send queue is dropped.

Times are milliseconds of one clock that never goes back; every event carries the present one.
"""

from __future__ import annotations

from relevo.mirror.command_events import (
    AllowAlone,
    Command,
    Connect,
    Demote,
    DenyAlone,
    Detach,
    Discard,
    Disconnect,
    Down,
    Invalidate,
    Keep,
    Leave,
    NewGeneration,
    Outdate,
    PauseResync,
    Promote,
    Resize,
    ResumeIo,
    Resync,
    ResyncSpeed,
    StopVerify,
    SuspendIo,
    Verify,
)
from relevo.mirror.effects import (
    CloseDisk,
    CommandDone,
    CompleteRequest,
    DeviceDown,
    DeviceGrow,
    DeviceUp,
    DiskDigest,
    DiskDiscard,
    DiskFlush,
    DiskRead,
    DiskReadThin,
    DiskWrite,
    DiskWriteSame,
    DropConnection,
    Effect,
    ForgetTarget,
    Log,
    MeasureDisk,
    NeedRandom,
    PersistEpoch,
    PersistStale,
    ReleaseBuffer,
    Resumed,
    RunHandler,
    SaveTarget,
    SendData,
    SendMeta,
    SetTimer,
    StatusChanged,
    Stopped,
    WantConnection,
    WriteActivityLog,
    WriteBitmap,
    WriteSuperblock,
)
from relevo.mirror.event_parts import AlTransaction, Buffer, MetaState, Token
from relevo.mirror.shell_events import (
    AppDiscard,
    AppFlush,
    AppRead,
    AppWrite,
    Attach,
    Configure,
    Connected,
    Disconnected,
    DiskDone,
    DiskMeasured,
    HandlerDone,
    PacketReceived,
    Probe,
    Random,
    Sent,
    Tick,
)

__all__ = [
    "AlTransaction",
    "AllowAlone",
    "AppDiscard",
    "AppFlush",
    "AppRead",
    "AppWrite",
    "Attach",
    "Buffer",
    "CloseDisk",
    "Command",
    "CommandDone",
    "CompleteRequest",
    "Configure",
    "Connect",
    "Connected",
    "Demote",
    "DenyAlone",
    "Detach",
    "DeviceDown",
    "DeviceGrow",
    "DeviceUp",
    "Discard",
    "Disconnect",
    "Disconnected",
    "DiskDigest",
    "DiskDiscard",
    "DiskDone",
    "DiskFlush",
    "DiskMeasured",
    "DiskRead",
    "DiskReadThin",
    "DiskWrite",
    "DiskWriteSame",
    "Down",
    "DropConnection",
    "Effect",
    "Event",
    "ForgetTarget",
    "HandlerDone",
    "Invalidate",
    "Keep",
    "Leave",
    "Log",
    "MeasureDisk",
    "MetaState",
    "NeedRandom",
    "NewGeneration",
    "Outdate",
    "PacketReceived",
    "PauseResync",
    "PersistEpoch",
    "PersistStale",
    "Probe",
    "Promote",
    "Random",
    "ReleaseBuffer",
    "Resize",
    "ResumeIo",
    "Resumed",
    "Resync",
    "ResyncSpeed",
    "RunHandler",
    "SaveTarget",
    "SendData",
    "SendMeta",
    "Sent",
    "SetTimer",
    "StatusChanged",
    "StopVerify",
    "Stopped",
    "SuspendIo",
    "Tick",
    "Token",
    "Verify",
    "WantConnection",
    "WriteActivityLog",
    "WriteBitmap",
    "WriteSuperblock",
]

Event = (
    Attach
    | AppRead
    | AppWrite
    | AppFlush
    | AppDiscard
    | DiskDone
    | DiskMeasured
    | Sent
    | HandlerDone
    | Connected
    | Disconnected
    | PacketReceived
    | Tick
    | Configure
    | Probe
    | Random
) | Command
