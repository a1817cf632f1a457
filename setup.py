"""Puts `stream`, `model`, `online` and `dashboard` inside the package `freshet`; pyproject.toml has
all else.
"""

from setuptools import find_packages, setup

FOLDERS = ("stream", "model", "online", "dashboard")

setup(
    packages=[
        *find_packages(include=["freshet", "freshet.*"]),
        *(
            f"freshet.{name}"
            for name in find_packages(include=[*FOLDERS, *(f"{f}.*" for f in FOLDERS)])
        ),
    ],
    package_dir={f"freshet.{folder}": folder for folder in FOLDERS},
)
