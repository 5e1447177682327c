"""What a plan will cost, before anything is measured: a guess from FLOPs, replaced by measured ETA in the run."""

from schemas.settings import RenderSettings

# Counted for the published UNet at 16 frames, 320x512, 320 channels (one forward with text and style).
_PUBLISHED_FORWARD_TFLOP = 10.92
_PUBLISHED_CHANNELS = 320
_PUBLISHED_PIXELS = 16 * 320 * 512
_DECODE_TFLOP = 25.0
_FORWARDS = {"video": 3, "image": 2}  # of a guided step; of another it is one

# Sustained, not peak; order of magnitude only.
_TFLOPS_GPU = 350.0
_TFLOPS_CPU_CORE = 0.04


def video_seconds(settings: RenderSettings, unet_channels: int, *, on_gpu: bool, cores: float) -> float:
    """A rough guess of the seconds that one actor needs for one video."""
    frames = settings.num_frames if settings.mode == "video" else 1
    pixels = frames * settings.height * settings.width / _PUBLISHED_PIXELS
    width = (unet_channels / _PUBLISHED_CHANNELS) ** 2
    guided = settings.guidance_end - settings.guidance_start
    forwards = settings.num_inference_steps * (1 + (_FORWARDS[settings.mode] - 1) * guided)
    tflop = pixels * width * (_PUBLISHED_FORWARD_TFLOP * forwards + _DECODE_TFLOP)
    return tflop / (_TFLOPS_GPU if on_gpu else _TFLOPS_CPU_CORE * max(cores, 1.0))
