"""Which operations each kind of broker answers, and with what."""

from __future__ import annotations

from typing import NamedTuple

from schemas.brokers.crb import (
    AbortCopy,
    Collect,
    Collected,
    CommitCopy,
    Committed,
    CopyDescription,
    CopyList,
    CrbInfo,
    DeleteCopy,
    DescribeCopy,
    ForgetImage,
    Granted,
    ImageList,
    ListCopies,
    ListImages,
    OpenRead,
    OpenWrite,
    RecordImage,
    RepairRepository,
    Repositories,
    RepositoriesRequest,
    RepositoryRepaired,
    RepositoryStats,
    StatsRequest,
    TransferCopy,
    Verified,
    VerifyCopy,
)
from schemas.brokers.dsb import (
    Attach,
    Attachable,
    Bind,
    Bound,
    Copied,
    CopyData,
    DataServiceHealth,
    DataServicesDescription,
    Deprovision,
    DescribeDataServices,
    DiscardCopy,
    DsbInfo,
    MaskingPreview,
    PrepareCopy,
    Prepared,
    PreviewMasking,
    Provision,
    Provisioned,
    StageCopy,
    Unbind,
)
from schemas.brokers.every import CancelRequest, Done, Health, InfoRequest, Outcome, Reply, Request, StatusRequest
from schemas.brokers.psb import (
    Deployed,
    DeployService,
    DescribeServices,
    ExecHook,
    Held,
    HookRan,
    LogLines,
    LogsRequest,
    PauseService,
    PsbInfo,
    RemoveService,
    ResumeService,
    RunHook,
    ScaleService,
    ServicesDescription,
    Spaces,
    SpacesRequest,
)
from schemas.values import (
    BrokerKind,
)


class OperationContract(NamedTuple):
    """The types of one broker operation; ``long`` ones answer :class:`Outcome` with ``result`` inside."""

    request: type[Request]
    result: type[Reply]
    long: bool = False


_ANY = {
    "status": OperationContract(StatusRequest, Outcome),
    "cancel": OperationContract(CancelRequest, Outcome),
}

CONTRACTS: dict[BrokerKind, dict[str, OperationContract]] = {
    "dsb": {
        "info": OperationContract(InfoRequest, DsbInfo),
        "attach": OperationContract(Attach, Attachable, long=True),
        "provision": OperationContract(Provision, Provisioned, long=True),
        "deprovision": OperationContract(Deprovision, Done, long=True),
        "bind": OperationContract(Bind, Bound),
        "unbind": OperationContract(Unbind, Done),
        "stage_copy": OperationContract(StageCopy, Done, long=True),
        "prepare_copy": OperationContract(PrepareCopy, Prepared),
        "copy": OperationContract(CopyData, Copied, long=True),
        "discard_copy": OperationContract(DiscardCopy, Done),
        "preview_masking": OperationContract(PreviewMasking, MaskingPreview),
        "describe": OperationContract(DescribeDataServices, DataServicesDescription),
        "health": OperationContract(DataServiceHealth, Health),
        **_ANY,
    },
    "psb": {
        "info": OperationContract(InfoRequest, PsbInfo),
        "spaces": OperationContract(SpacesRequest, Spaces),
        "deploy": OperationContract(DeployService, Deployed, long=True),
        "describe": OperationContract(DescribeServices, ServicesDescription),
        "scale": OperationContract(ScaleService, Done, long=True),
        "pause": OperationContract(PauseService, Held),
        "resume": OperationContract(ResumeService, Held),
        "exec_hook": OperationContract(ExecHook, Held),
        "run_hook": OperationContract(RunHook, HookRan, long=True),
        "remove": OperationContract(RemoveService, Done, long=True),
        "logs": OperationContract(LogsRequest, LogLines),
        "health": OperationContract(DataServiceHealth, Health),
        **_ANY,
    },
    "crb": {
        "info": OperationContract(InfoRequest, CrbInfo),
        "repositories": OperationContract(RepositoriesRequest, Repositories),
        "open_write": OperationContract(OpenWrite, Granted),
        "commit": OperationContract(CommitCopy, Committed, long=True),
        "abort": OperationContract(AbortCopy, Done),
        "open_read": OperationContract(OpenRead, Granted),
        "list": OperationContract(ListCopies, CopyList),
        "describe": OperationContract(DescribeCopy, CopyDescription),
        "verify": OperationContract(VerifyCopy, Verified, long=True),
        "delete": OperationContract(DeleteCopy, Done, long=True),
        "transfer": OperationContract(TransferCopy, Committed, long=True),
        "images": OperationContract(ListImages, ImageList),
        "record_image": OperationContract(RecordImage, Done),
        "forget_image": OperationContract(ForgetImage, Done),
        "collect": OperationContract(Collect, Collected, long=True),
        "repair": OperationContract(RepairRepository, RepositoryRepaired, long=True),
        "stats": OperationContract(StatsRequest, RepositoryStats),
        "health": OperationContract(DataServiceHealth, Health),
        **_ANY,
    },
    "arb": {},
}
