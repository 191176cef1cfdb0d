"""Start NeMo-RL's PPO with what is in this folder; NEMO_RL is the path of its checkout."""

import os
import runpy
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
NEMO_RL = Path(os.environ.get("NEMO_RL", ""))
if not (NEMO_RL / "examples" / "run_ppo.py").is_file():
    sys.exit("Set NEMO_RL to a checkout of https://github.com/NVIDIA-NeMo/RL.")
# Ray's workers import environment.py and reward.py too.
os.environ["PYTHONPATH"] = f"{HERE}:{os.environ.get('PYTHONPATH', '')}"
sys.path.insert(0, str(HERE))

import environment
from nemo_rl.data.processors import register_processor
from nemo_rl.distributed.ray_actor_environment_registry import ACTOR_ENVIRONMENT_REGISTRY
from nemo_rl.distributed.virtual_cluster import PY_EXECUTABLES
from nemo_rl.environments.utils import register_env

register_processor("ground_control", environment.read_prompt)
register_env("ground_control", "environment.RewardModel")
ACTOR_ENVIRONMENT_REGISTRY["environment.RewardModel"] = PY_EXECUTABLES.SYSTEM
config = NEMO_RL / "examples" / "configs" / "ppo_math_1B.yaml"
sys.argv[1:1] = ["--config", str(config)]
runpy.run_path(str(NEMO_RL / "examples" / "run_ppo.py"), run_name="__main__")
