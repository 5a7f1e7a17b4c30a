# docker build -t wsol . && docker run --rm -v "$PWD/results:/work/results" wsol
FROM python:3.11-slim
WORKDIR /opt/wsol
COPY pyproject.toml README.md LICENSE ./
COPY wsol wsol
COPY conf conf
COPY results/published.csv results/published.csv
RUN pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu \
    && pip install --no-cache-dir .
WORKDIR /work
ENTRYPOINT ["wsol"]
