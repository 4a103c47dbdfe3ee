from python:3.12-slim as base
onbuild arg REQUIREMENTS=requirements.txt
onbuild copy ${REQUIREMENTS} /tmp/requirements.txt
onbuild run --mount=type=cache,target=/root/.cache/pip \
    pip install -r /tmp/requirements.txt
onbuild copy . /app
onbuild workdir /app
onbuild cmd ["python", "-m", "app"]
