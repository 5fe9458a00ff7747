# The course for readers, in a container. Never built by those who test the course: no daemon there.
#   docker build --build-arg TORCH_INDEX=ADDRESS -t fewshot .
#   docker run --rm -p 127.0.0.1:8888:8888 fewshot
# ADDRESS: of the CPU index on PyTorch's page "Get started"; without it, PyTorch brings CUDA.
FROM python:3.11-slim
ARG TORCH_INDEX=""
RUN useradd --create-home reader && install -d -o reader /course
WORKDIR /course
COPY --chown=reader pyproject.toml constraints.txt README.md LICENSE ./
COPY --chown=reader fewshot_lib fewshot_lib
RUN PIP_EXTRA_INDEX_URL=$TORCH_INDEX pip install --no-cache-dir -c constraints.txt -e ".[lab]"
USER reader
RUN fewshot data fetch
COPY --chown=reader notebooks notebooks
COPY --chown=reader exercises exercises
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--no-browser", "--LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb"]
