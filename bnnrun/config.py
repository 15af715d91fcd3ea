"""The typed configuration: every setting with its meaning, unit, range and default.

The dataclasses are the schema that Hydra checks names and types against; `settings.check` adds what
types cannot say. Values that depend on a choice (`arch=mlp`, `dataset=mnist`) stand in conf/.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from bnnrun.settings import MISSING, plain, setting


class Device(Enum):
    """Where the network runs."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Binarizer(Enum):
    """How real numbers become ±1 (Eq. 1-3)."""

    sign = "sign"
    stochastic = "stochastic"
    none = "none"


class Estimator(Enum):
    """The gradient of Sign that activations are trained with; one file each in nn/quantizers/."""

    ste = "ste"
    identity = "identity"
    approx = "approx"


class EngineChoice(Enum):
    """What computes the steps of training."""

    auto = "auto"
    reference = "reference"
    fast = "fast"


class NormName(Enum):
    """A batch normalization: vanilla, or shift-based (Alg. 3)."""

    batch = "batch"
    shift = "shift"


class LrScale(Enum):
    """What the step of a binary weight is multiplied by: c = sqrt((fan_in + fan_out) / 1.5)."""

    c = "c"
    c_power_of_two = "c_power_of_two"
    none = "none"


class AdaMaxRule(Enum):
    """Shift-based AdaMax as the paper prints it or as the Torch7 code has it."""

    paper = "paper"
    code = "code"


class Clip(Enum):
    """Which parameters are clipped to [-1, 1] after each step."""

    weights = "weights"
    all = "all"
    none = "none"


class Schedule(Enum):
    """How the learning rate falls from epoch to epoch."""

    geometric = "geometric"
    halving = "halving"
    constant = "constant"


class Workload(Enum):
    """What `bench` times."""

    gemm = "gemm"
    mlp = "mlp"
    convnet = "convnet"
    train_step = "train_step"


class BenchKernel(Enum):
    """Which competitors `bench` times; float32 BLAS, the yardstick, always runs."""

    all = "all"
    xnor = "xnor"
    baseline = "baseline"
    blas = "blas"
    peers = "peers"
    reference = "reference"


class Kernel(Enum):
    """What multiplies ±1 by ±1."""

    xnor = "xnor"
    reference = "reference"


class FirstLayer(Enum):
    """How a packed network multiplies 8-bit pixels by ±1 weights; the sums are the same."""

    auto = "auto"
    bytes = "bytes"
    planes = "planes"


class Verify(Enum):
    """What becomes of a data file that is not the published one; its form is always checked."""

    strict = "strict"
    warn = "warn"
    off = "off"


class Preprocessing(Enum):
    """How 8-bit pixels become network input; fitted on the training part."""

    scale = "scale"
    standardize = "standardize"
    zca = "zca"


class DataAction(Enum):
    """What `bnnrun data` does."""

    status = "status"
    verify = "verify"
    fetch = "fetch"


class ExportFormat(Enum):
    """What a packed network is exported to."""

    c = "c"
    onnx = "onnx"
    qonnx = "qonnx"


class ExportLayout(Enum):
    """How the files of format=c are arranged."""

    files = "files"
    arduino = "arduino"


class TableFormat(Enum):
    """How a table is printed."""

    table = "table"
    markdown = "markdown"
    csv = "csv"


@dataclass
class ProfileConfig:
    """What the paper fixes for a data set; other groups take their values from here."""

    epochs: int = setting(MISSING, "becomes trainer.epochs", unit="epochs", valid="[1, inf)")
    batch_size: int = setting(
        MISSING, "becomes trainer.batch_size", unit="images", valid="[2, inf)"
    )
    halve_every: int = setting(
        MISSING, "becomes optimizer.halve_every", unit="epochs", valid="[1, inf)"
    )
    width: int = setting(MISSING, "becomes arch.width of arch=mlp", unit="units", valid="[1, inf)")
    channels: list[int] = setting(
        MISSING, "becomes arch.channels of arch=convnet", unit="channels", valid="[1, inf)"
    )
    dropout_input: float = setting(0.0, "becomes arch.dropout_input", valid="[0, 1)")
    dropout_hidden: float = setting(0.0, "becomes arch.dropout_hidden", valid="[0, 1)")
    lr: dict[str, float] = setting(
        {}, "by optimizer, becomes optimizer.lr; the others have their own", valid="(0, inf)"
    )
    lr_end: dict[str, float] = setting(
        {}, "by optimizer, becomes optimizer.lr_end; the others have their own", valid="(0, inf)"
    )


@dataclass
class DatasetConfig:
    """The images: their files and their split."""

    name: str = setting(MISSING, "the reader in bnnrun/data")
    root: str = setting(MISSING, "folder of the data sets' files ($BNNRUN_DATA)", place=True)
    validation: int = setting(
        MISSING,
        "training images kept for validation (svhn: of each class; folder: by valid_share)",
        unit="images",
        valid="[0, inf)",
    )
    holdout_test: int = setting(
        0,
        "last training images held out as the test set where the official one is absent",
        unit="images",
        valid="[0, inf)",
    )
    verify: Verify = setting(
        Verify.strict,
        "files that are not the published ones: strict refuses, warn tells, off reads",
    )
    preprocessing: Preprocessing = setting(
        Preprocessing.scale,
        "scale: to [-1, 1]; standardize: one mean and deviation; zca: whitened",
    )


@dataclass
class SvhnConfig(DatasetConfig):
    """SVHN, whose validation images come from two files."""

    validation_extra: int = setting(
        200,
        "images of each class kept for validation from extra, where it is there",
        unit="images",
        valid="[0, inf)",
    )


@dataclass
class FolderConfig(DatasetConfig):
    """A user's own images: path/CLASS/*.png, or such folders in path/train, val and test."""

    path: str = setting("", "folder that holds one folder of images a class", place=True)
    image_size: list[int] = setting(
        [32, 32], "[height,width] that images are resized to", unit="pixels", valid="[1, inf)"
    )
    channels: int = setting(3, "1: grey, 3: RGB", valid="[1, 3]")
    valid_share: float = setting(
        0.1,
        "of each class, about, for validation, by the images' names; without a folder val",
        valid="(0, 1)",
    )
    test_share: float = setting(
        0.2,
        "of each class, about, for the test, by the images' names; without a folder test",
        valid="(0, 1)",
    )


@dataclass
class ArchConfig:
    """The network's shape."""

    name: str = setting(MISSING, "the builder in bnnrun/architecture.py")


@dataclass
class MlpConfig(ArchConfig):
    """Fully connected: `depth` hidden layers of `width` units, then the output layer."""

    depth: int = setting(3, "hidden layers", unit="layers", valid="[1, inf)")
    width: int = setting(MISSING, "units of a hidden layer", unit="units", valid="[1, inf)")
    dropout_input: float = setting(0.0, "share of pixels dropped in training", valid="[0, 1)")
    dropout_hidden: float = setting(
        0.0, "share of hidden activations dropped in training", valid="[0, 1)"
    )


@dataclass
class ConvNetConfig(ArchConfig):
    """3x3 convolutions, each second one pooled, then fully connected layers."""

    channels: list[int] = setting(
        MISSING, "output channels of each convolution", unit="channels", valid="[1, inf)"
    )
    fc: list[int] = setting(
        MISSING, "units of each hidden fully connected layer", unit="units", valid="[1, inf)"
    )


@dataclass
class BinarizationConfig:
    """What is quantized: weights, activations, both or neither; evaluation always takes Sign.

    One bit is ±1; k bits are 2^k levels from -1 to 1 (nn/quantizers/levels.py).
    """

    weights: Binarizer = setting(MISSING, "none: real weights, neither scaled by c nor clipped")
    activations: Binarizer = setting(MISSING, "none: ReLU in place of Sign")
    estimator: Estimator = setting(
        Estimator.ste,
        "gradient of activations: ste: 1 where |a| <= 1, else 0 (Eq. 4); identity: 1; approx: "
        "2 - 2|a| where |a| <= 1, else 0",
    )
    weight_bits: Any = setting(
        1, "of a weight: a number, or a list with one for each layer", unit="bits", valid="[1, 8]"
    )
    activation_bits: Any = setting(
        1,
        "of an activation: a number, or a list with one for each hidden layer",
        unit="bits",
        valid="[1, 8]",
    )


@dataclass
class NormConfig:
    """Batch normalization, averaging the inverse deviation of batches as Lasagne does."""

    name: NormName = setting(MISSING, "batch: vanilla; shift: shift-based (Alg. 3)")
    eps: float = setting(MISSING, "added to the variance", valid="(0, inf)")
    momentum: float = setting(
        MISSING, "weight of a batch in the running statistics", valid="(0, 1]"
    )


@dataclass
class ShiftNormConfig(NormConfig):
    """Shift-based batch normalization; that of the output layer is a choice."""

    output: NormName = setting(
        NormName.batch, "of the output layer: batch as the Torch7 code, shift as the paper"
    )
    output_momentum: float = setting(0.1, "momentum of the output layer's", valid="(0, 1]")


@dataclass
class OptimizerConfig:
    """The step of the parameters, and its size over the epochs."""

    name: str = setting(MISSING, "the rule in bnnrun/train/optim.py")
    lr: float = setting(MISSING, "learning rate of the first epoch", valid="(0, inf)")
    schedule: Schedule = setting(MISSING, "how the rate falls, epoch by epoch")
    lr_end: float = setting(1e-6, "rate that schedule=geometric tends to", valid="(0, inf)")
    halve_every: int = setting(
        MISSING, "interval of schedule=halving", unit="epochs", valid="[1, inf)"
    )
    lr_scale: LrScale = setting(LrScale.c, "factor of the step of binary weights")
    scale_gamma: bool = setting(
        False, "step of each gamma times sqrt(channels / 1.5), as the Torch7 code on MNIST"
    )
    clip: Clip = setting(Clip.weights, "what is clipped to [-1, 1] after the step")


@dataclass
class AdamConfig(OptimizerConfig):
    """Adam in Lasagne's form."""

    beta1: float = setting(0.9, "decay of the mean of gradients", valid="[0, 1)")
    beta2: float = setting(0.999, "decay of the mean of squared gradients", valid="[0, 1)")
    eps: float = setting(1e-8, "added to the root of the uncorrected mean square", valid="(0, inf)")


@dataclass
class ShiftAdaMaxConfig(OptimizerConfig):
    """Shift-based AdaMax (arXiv Alg. 4, NIPS Alg. 2)."""

    rule: AdaMaxRule = setting(
        AdaMaxRule.paper, "paper: the printed rule; code: the Torch7 code's, whose v never decays"
    )
    beta1: float = setting(MISSING, "decay of the mean of gradients", valid="[0, 1)")
    beta2: float = setting(MISSING, "decay of the largest gradient", valid="[0, 1)")


@dataclass
class SgdConfig(OptimizerConfig):
    """Gradient descent with momentum."""

    momentum: float = setting(0.9, "decay of the sum of gradients", valid="[0, 1)")


@dataclass
class TrainerConfig:
    """The loop."""

    epochs: int = setting(
        MISSING, "passes over the training images", unit="epochs", valid="[1, inf)"
    )
    batch_size: int = setting(
        MISSING,
        "images a step; the last incomplete batch is dropped",
        unit="images",
        valid="[2, inf)",
    )
    eval_batch_size: int = setting(
        250, "images a product in evaluation; changes no result", unit="images", valid="[1, inf)"
    )
    engine: EngineChoice = setting(
        EngineChoice.auto,
        "reference: Alg. 1 in plain PyTorch; fast: the device's own engine, with popcounts of ±1 "
        "and fused kernels; auto: fast where there is one, else reference",
    )


@dataclass
class VerbConfig:
    """What every verb takes."""

    debug: bool = setting(False, "show the traceback of an error")


@dataclass
class NetworkConfig(VerbConfig):
    """What a network is made from; the verbs that build one share it."""

    seed: int = setting(0, "of initial weights, shuffling and dropout", valid="[0, 4294967295]")
    device: Device = setting(Device.auto, "auto: cuda where there is one, else cpu")
    threads: int = setting(0, "processor threads; 0: as many as cores", valid="[0, 4096]")
    results_dir: str = setting("results", "folder whose runs/ takes the records", place=True)
    cell: str = setting(
        "", "cell of the paper's tables that the run belongs to (experiments set it)"
    )
    dataset: DatasetConfig = setting(MISSING, "")
    profile: ProfileConfig = setting(MISSING, "")
    arch: ArchConfig = setting(MISSING, "")
    binarization: BinarizationConfig = setting(MISSING, "")
    norm: NormConfig = setting(MISSING, "")
    optimizer: OptimizerConfig = setting(MISSING, "")
    trainer: TrainerConfig = field(default_factory=TrainerConfig)


@dataclass
class TrainConfig(NetworkConfig):
    """Train a network; the epoch is picked by validation error, then tested."""

    resume: str | None = setting(
        None, "run folder to go on with, in its own configuration", place=True
    )
    init: str | None = setting(
        None, "run folder, or network file (.pt), whose weights training starts from", place=True
    )
    overwrite: bool = setting(
        False, "train anew over a run in the same folder; with -m also what has its record"
    )
    plan: bool = setting(
        False, "with -m: list the jobs, who holds them, and hours; train and write nothing"
    )


@dataclass
class BenchConfig(NetworkConfig):
    """Time a workload against its competitors, checked first, in turns."""

    workload: Workload = setting(
        Workload.gemm,
        "gemm: a product of ±1 matrices; mlp, convnet: a whole network, from pixels to labels; "
        "train_step: one step of training",
    )
    kernel: BenchKernel = setting(BenchKernel.all, "competitors; float32 BLAS always runs too")
    m: int = setting(4096, "rows of the product", unit="rows", valid="[1, 1048576]")
    n: int = setting(MISSING, "columns of the product; m", unit="columns", valid="[1, 1048576]")
    k: int = setting(MISSING, "length of its sums; m", unit="bits", valid="[1, 1048576]")
    batch: int = setting(
        1000, "images of workload=mlp and convnet", unit="images", valid="[1, 1048576]"
    )
    layers: bool = setting(
        False, "mlp, convnet: each layer of the packed network too, against its own roofline"
    )
    rounds: int = setting(15, "timed calls of each competitor", unit="calls", valid="[3, inf)")
    seconds: float = setting(
        20.0, "no new round is begun after this long", unit="seconds", valid="(0, inf)"
    )


@dataclass
class PackConfig(VerbConfig):
    """Pack a trained network: weights as bits, batch norm and Sign as whole thresholds."""

    run: str = setting(
        "", "run folder of `bnnrun train`, or a network file of its (best.pt)", place=True
    )
    out: str | None = setting(
        None, "packed file to write; none named: model.safetensors there", place=True
    )


@dataclass
class ExportConfig(VerbConfig):
    """Export a packed network: C99 for small devices, ONNX or QONNX for other tools."""

    model: str = setting("", "packed file, or the folder that holds model.safetensors", place=True)
    format: ExportFormat = setting(
        ExportFormat.c,
        "c: C99 without floating point; onnx: standard operators, the same scores bit for bit; "
        "qonnx: BipolarQuant and MultiThreshold, for FINN and hls4ml",
    )
    out: str | None = setting(
        None,
        "folder of the C files, or the ONNX file; none named: after `name`, beside the model",
        place=True,
    )
    name: str | None = setting(
        None, "of the C functions and of the files; none named: after the model's file or folder"
    )
    layout: ExportLayout = setting(
        ExportLayout.files, "of format=c; arduino: a library with an example sketch"
    )
    overwrite: bool = setting(False, "replace files of the same names")


@dataclass
class PackedConfig(VerbConfig):
    """What every verb takes that runs a packed network."""

    model: str = setting(
        "",
        "packed file, the folder that holds model.safetensors, or an ONNX file of `bnnrun export`",
        place=True,
    )
    kernel: Kernel = setting(Kernel.xnor, "xnor: fast; reference: by definition, in NumPy")
    first_layer: FirstLayer = setting(
        FirstLayer.auto, "first layer: products of bytes, or one bit plane after the other"
    )
    device: Device = setting(Device.auto, "auto: cuda where there is one, else cpu")
    threads: int = setting(0, "processor threads; 0: as many as cores", valid="[0, 4096]")


@dataclass
class EvalConfig(PackedConfig):
    """Test error of a network; with verify every bit of a packed one against the trained one."""

    verify: bool = setting(
        False,
        "compare every hidden bit and every score with the trained network; of an ONNX file every "
        "score with the packed one",
    )
    trained: str | None = setting(
        None,
        "network file that verify compares with; none named: best.pt, or the packed file, beside "
        "the model",
        place=True,
    )
    results_dir: str = setting("results", "folder whose runs/ takes the records", place=True)
    dataset: DatasetConfig = setting(MISSING, "")


@dataclass
class PredictConfig(PackedConfig):
    """Class and scores of image files by a packed network."""

    images: list[str] = setting([], "image files, or folders of them", place=True)
    format: TableFormat = setting(TableFormat.table, "how it is printed")


@dataclass
class FiltersConfig(VerbConfig):
    """How many 3x3 filters of a packed ConvNet differ, and a picture of the first layer's."""

    model: str = setting("", "packed file, or the folder that holds model.safetensors", place=True)
    results_dir: str = setting("results", "folder whose runs/ takes the records", place=True)


@dataclass
class SummaryConfig(VerbConfig):
    """Layers, shapes, parameters, MACs, bits and bytes of a network."""

    format: TableFormat = setting(TableFormat.table, "how it is printed")
    dataset: DatasetConfig = setting(MISSING, "")
    profile: ProfileConfig = setting(MISSING, "")
    arch: ArchConfig = setting(MISSING, "")
    binarization: BinarizationConfig = setting(MISSING, "")


@dataclass
class ReportConfig(VerbConfig):
    """Make every table and figure from the records, or check that they are made."""

    results_dir: str = setting("results", "folder whose runs/ holds the records", place=True)
    check: bool = setting(False, "write nothing; fail where a file is not what the records give")
    cell: str = setting(
        "", "explain one number, such as table1.mnist.theano: its runs; table1: which there are"
    )


@dataclass
class DataConfig(VerbConfig):
    """The data sets' files: which are there, whole, and where to get the others."""

    action: DataAction = setting(
        DataAction.status,
        "status: which files are there; verify: their MD5 sums too; fetch: download the others",
    )
    sets: list[str] = setting([], "data sets: mnist, cifar10, svhn, digits; none named: all")
    root: str = setting(MISSING, "folder of the data sets' files ($BNNRUN_DATA)", place=True)


@dataclass
class DoctorConfig(VerbConfig):
    """What works on this machine, what does not, and why."""

    root: str = setting(MISSING, "folder of the data sets' files ($BNNRUN_DATA)", place=True)
    results_dir: str = setting("results", "folder whose runs/ takes the records", place=True)
    compile: bool = setting(False, "compile the processor's kernels now, not at their first use")


# Settings that say where a run happens and what is shown of it, not what it computes.
PLACES = {
    "device", "threads", "results_dir", "resume", "init", "overwrite", "plan", "debug",
    "dataset.root", "dataset.path", "model", "trained", "run", "out",
}  # fmt: skip


def computed(config: object) -> dict[str, Any]:
    """`plain`, without the settings of PLACES: two runs that agree in it compute the same.

    Without the profile too: its values stand where they are used, and those that are not used
    make no difference.
    """
    tree: dict[str, Any] = plain(config)
    tree.pop("profile", None)
    trainer = tree.get("trainer", {})
    if trainer.get("engine") == EngineChoice.auto.value:
        trainer["engine"] = EngineChoice.fast.value  # what it is, but where a device has none
    for place in PLACES:
        *groups, key = place.split(".")
        node: Any = tree
        for group in groups:
            node = node.get(group, {})
        node.pop(key, None)
    return tree
